//! How runs are drawn: the strategies that proptest shrinks along. Simpler values come first everywhere: what a failure does not need is
//! off, empty, short or zero in the run that is left.

use proptest::{
    bool, collection, option,
    prelude::{Just, Strategy, prop_oneof},
    sample,
    strategy::{BoxedStrategy, NewTree, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::{
    names::{APPLICATIONS, MODULES, SITES},
    settings::SETTING_MAX,
    transition::{Enrollment, Joins, Opening, Selector, Source, Transition, Wanted},
    tree::{Drawn, ScenarioTree},
    weather::Weather,
    world::{CALM_MS, CONTROLLERS, FAULTS_MS, GATEWAYS, HARDWARE},
};

/// What is away is so for this long at most; half of the time it is back soon.
const AWAY_MS: u64 = 70_000;
const SOON_MS: u64 = 8_000;
const CLOCK_DAY_MS: i64 = 24 * 3_600_000;
/// A wall clock is wrong by at most 50 years: from the simulation's year that is after 1970, where a host's clock without a battery begins.
const CLOCK_MS_MAX: i64 = 50 * 365 * CLOCK_DAY_MS;
/// The module that [`Transition::Want`] and [`Transition::ProvideModules`] mean is one of so many sizes.
const SIZES: usize = 3;
/// Each fault counts twice what a deed of people does.
const FAULTS_WEIGHT: u32 = 2;

/// The run that follows from a seed, with all that it can be shrunk to.
pub(crate) fn scenario(seed: u64) -> NewTree<Scenarios> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { failure_persistence: None, ..Config::default() };
    Scenarios.new_tree(&mut TestRunner::new_with_rng(config, rng))
}

/// All runs. Not proptest's list of transitions, which leaves out one at a time: of two hundred that takes minutes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenarios;

impl Strategy for Scenarios {
    type Tree = ScenarioTree;
    type Value = crate::transition::Scenario;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let opening = opening().new_tree(runner)?;
        let transitions = weighted();
        let weights = transitions.iter().map(|(weight, _)| weight).sum::<u32>();
        let gap = gap_ms();
        let mut steps = Vec::new();
        let mut at_ms = 0;
        loop {
            at_ms += gap.new_tree(runner)?.current();
            if at_ms >= FAULTS_MS {
                break;
            }
            // The kind is drawn here, where nothing shrinks one into another.
            let mut chosen = (0..weights).new_tree(runner)?.current();
            let strategy = transitions.iter().find(|(weight, _)| {
                let here = chosen < *weight;
                chosen = chosen.saturating_sub(*weight);
                here
            });
            if let Some((_, strategy)) = strategy {
                steps.push(Drawn::new(at_ms, Box::new(strategy.new_tree(runner)?)));
            }
        }
        // Each device has another gateway to go to, and another controller leads.
        let mut last = last_word();
        let gone = [
            (0..GATEWAYS).prop_map(|gateway| Transition::RemoveGateway { gateway }).boxed(),
            (0..CONTROLLERS).prop_map(|controller| Transition::RemoveController { controller }).boxed(),
        ];
        for strategy in gone {
            if chance(0.25).new_tree(runner)?.current() {
                last.push(strategy);
            }
        }
        for strategy in last {
            steps.push(Drawn::new(FAULTS_MS, Box::new(strategy.new_tree(runner)?)));
        }
        for application in 0..APPLICATIONS.len() {
            let strategy = adjust(Just(application));
            steps.push(Drawn::new(CALM_MS, Box::new(strategy.new_tree(runner)?)));
        }
        Ok(ScenarioTree::new(Box::new(opening), steps))
    }
}

/// Between two transitions: often both fall into one exchange of messages.
fn gap_ms() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0..100u64, 3 => 0..1_000u64, 4 => 0..8_000u64]
}

fn opening() -> impl Strategy<Value = Opening> {
    let enrollment = prop_oneof![2 => Just(Enrollment::Open), 1 => Just(Enrollment::Approval), 1 => Just(Enrollment::Closed)];
    let tried = (0..GATEWAYS, 2..=GATEWAYS)
        .prop_map(|(first, count)| (first..first + count).map(|next| next % GATEWAYS).collect());
    let noise = proptest::num::u64::ANY.no_shrink();
    let all = (weather(), enrollment, collection::vec(tried, HARDWARE.len()), joins(), chance(0.5), noise);
    all.prop_map(|(weather, enrollment, gateways, joins, broker, noise)| Opening {
        enrollment,
        gateways,
        joins,
        broker,
        weather,
        noise,
    })
}

/// In a sixth of the runs most devices join.
fn joins() -> impl Strategy<Value = Vec<Joins>> {
    let joins = prop_oneof![1 => Just(Joins::Never), 2 => Just(Joins::Factory), 2 => Just(Joins::Token)];
    prop_oneof![5 => Just(Vec::new()), 1 => collection::vec(joins, HARDWARE.len())]
}

fn weather() -> impl Strategy<Value = Weather> {
    // Mostly as bad as everywhere; sometimes one thing is fine, or far worse.
    let chance = |usual: u16| prop_oneof![1 => Just(0), 6 => Just(usual), 1 => Just(usual * 5 / 2)];
    let of_api = (chance(50), chance(50), chance(40));
    let of_gateways = (chance(100), chance(100), chance(33));
    (of_api, of_gateways, chance(333)).prop_map(
        |((throttled, unavailable, answer_lost), (request_lost, outcome_lost, sets_late), watch_lags)| {
            Weather { throttled, unavailable, answer_lost, request_lost, outcome_lost, watch_lags, sets_late }
        },
    )
}

/// What may happen while there are faults, and how often each.
fn weighted() -> Vec<(u32, BoxedStrategy<Transition>)> {
    let faults = of_devices().into_iter().chain(of_gateways()).chain(of_controllers());
    let faults = faults.chain(of_broker()).chain(of_signer()).chain(of_api());
    let faults = faults.map(|(weight, strategy)| (weight * FAULTS_WEIGHT, strategy));
    of_people().into_iter().chain(faults).collect()
}

fn of_people() -> Vec<(u32, BoxedStrategy<Transition>)> {
    let device = || 0..HARDWARE.len();
    vec![
        (54, want(0..APPLICATIONS.len()).boxed()),
        (
            18,
            (0..APPLICATIONS.len())
                .prop_map(|application| Transition::DeleteApplication { application })
                .boxed(),
        ),
        (18, adjust(0..APPLICATIONS.len()).boxed()),
        (9, (0..MODULES.len()).prop_map(|module| Transition::DeleteModule { module }).boxed()),
        (9, provide_modules().boxed()),
        (9, label(device()).boxed()),
        (
            9,
            (device(), bool::ANY)
                .prop_map(|(device, unschedulable)| Transition::Cordon { device, unschedulable })
                .boxed(),
        ),
        (9, revoke(device(), 0.33).boxed()),
        (9, device().prop_map(|device| Transition::Approve { device, approved: true }).boxed()),
        (9, device().prop_map(|device| Transition::DeleteDevice { device }).boxed()),
        // Nothing runs there for the rest of the run.
        (4, device().prop_map(|device| Transition::Decommission { device }).boxed()),
        (3, (0..3usize).prop_map(|first| Transition::DeleteNamespace { first }).boxed()),
        (15, device().prop_map(|device| Transition::Announce { device }).boxed()),
        (9, register(device()).boxed()),
        (
            4,
            (device(), chance(0.5))
                .prop_map(|(device, approved)| Transition::Decide { device, approved })
                .boxed(),
        ),
        (4, device().prop_map(|device| Transition::DeleteRequests { device }).boxed()),
    ]
}

fn of_devices() -> Vec<(u32, BoxedStrategy<Transition>)> {
    let device = || 0..HARDWARE.len();
    let at_write = (device(), 0..12u32, 0..=1_000u16);
    vec![
        (
            13,
            (device(), 0..20_000u64, chance(0.25))
                .prop_map(|(device, for_ms, counters)| Transition::LosePower { device, for_ms, counters })
                .boxed(),
        ),
        (
            17,
            at_write
                .prop_map(|(device, writes, permille)| Transition::LosePowerAtWrite {
                    device,
                    writes,
                    permille,
                })
                .boxed(),
        ),
        (
            8,
            (device(), away_ms())
                .prop_map(|(device, for_ms)| Transition::FillDevice { device, for_ms })
                .boxed(),
        ),
        (12, device().prop_map(|device| Transition::CutLink { device }).boxed()),
        (6, device().prop_map(|device| Transition::SilenceLink { device }).boxed()),
        (
            6,
            (device(), 0..SOON_MS)
                .prop_map(|(device, for_ms)| Transition::DelayLink { device, for_ms })
                .boxed(),
        ),
    ]
}

fn of_gateways() -> Vec<(u32, BoxedStrategy<Transition>)> {
    let one = || (0..GATEWAYS, away_ms());
    vec![
        (
            12,
            (one(), chance(0.33))
                .prop_map(|((gateway, for_ms), loses_disk)| Transition::KillGateway {
                    gateway,
                    for_ms,
                    loses_disk,
                })
                .boxed(),
        ),
        (6, one().prop_map(|(gateway, for_ms)| Transition::StopGateway { gateway, for_ms }).boxed()),
        (4, one().prop_map(|(gateway, for_ms)| Transition::IsolateGateway { gateway, for_ms }).boxed()),
        (4, one().prop_map(|(gateway, for_ms)| Transition::ImpersonateGateway { gateway, for_ms }).boxed()),
        (6, one().prop_map(|(gateway, for_ms)| Transition::FillGateway { gateway, for_ms }).boxed()),
        (
            6,
            (0..GATEWAYS, ahead_ms())
                .prop_map(|(gateway, ahead_ms)| Transition::SetGatewayClock { gateway, ahead_ms })
                .boxed(),
        ),
    ]
}

fn of_controllers() -> Vec<(u32, BoxedStrategy<Transition>)> {
    let one = || (0..CONTROLLERS, away_ms());
    vec![
        (
            12,
            one().prop_map(|(controller, for_ms)| Transition::KillController { controller, for_ms }).boxed(),
        ),
        (6, one().prop_map(|(controller, for_ms)| Transition::StopController { controller, for_ms }).boxed()),
        (
            6,
            one().prop_map(|(controller, for_ms)| Transition::PauseController { controller, for_ms }).boxed(),
        ),
        (
            6,
            one()
                .prop_map(|(controller, for_ms)| Transition::IsolateController { controller, for_ms })
                .boxed(),
        ),
        (
            6,
            one().prop_map(|(controller, for_ms)| Transition::BlindController { controller, for_ms }).boxed(),
        ),
        (
            6,
            (0..CONTROLLERS, ahead_ms())
                .prop_map(|(controller, ahead_ms)| Transition::SetControllerClock { controller, ahead_ms })
                .boxed(),
        ),
    ]
}

fn of_broker() -> Vec<(u32, BoxedStrategy<Transition>)> {
    vec![(4, away_ms().prop_map(|for_ms| Transition::StopBroker { for_ms }).boxed())]
}

fn of_signer() -> Vec<(u32, BoxedStrategy<Transition>)> {
    vec![
        (5, away_ms().prop_map(|for_ms| Transition::KillSigner { for_ms }).boxed()),
        (3, away_ms().prop_map(|for_ms| Transition::IsolateSigner { for_ms }).boxed()),
        (2, ahead_ms().prop_map(|ahead_ms| Transition::SetSignerClock { ahead_ms }).boxed()),
    ]
}

fn of_api() -> Vec<(u32, BoxedStrategy<Transition>)> {
    vec![
        (12, Just(Transition::RestartApi).boxed()),
        (12, away_ms().prop_map(|for_ms| Transition::StopApi { for_ms }).boxed()),
        (6, away_ms().prop_map(|for_ms| Transition::FillApi { for_ms }).boxed()),
        (3, ahead_ms().prop_map(|ahead_ms| Transition::SetApiClock { ahead_ms }).boxed()),
    ]
}

/// What people leave behind when the faults end, so that there is something to converge to.
fn last_word() -> Vec<BoxedStrategy<Transition>> {
    let mut all = vec![provide_modules().boxed()];
    all.extend((0..APPLICATIONS.len()).map(|application| want(Just(application)).boxed()));
    all.extend((0..APPLICATIONS.len()).map(|application| adjust(Just(application)).boxed()));
    for device in 0..HARDWARE.len() {
        all.push(label(Just(device)).boxed());
        all.push(revoke(Just(device), 0.17).boxed());
        all.push(register(Just(device)).boxed());
    }
    all
}

fn away_ms() -> impl Strategy<Value = u64> {
    prop_oneof![0..SOON_MS, 0..AWAY_MS]
}

/// How far a wall clock is from the true time: right again, or off by what matters to a Lease, to a certificate, or to nobody any more.
fn ahead_ms() -> impl Strategy<Value = i64> {
    let within = |most_ms: i64| -most_ms..=most_ms;
    prop_oneof![Just(0), within(20_000), within(CLOCK_DAY_MS), within(CLOCK_MS_MAX)]
}

fn chance(of: f64) -> impl Strategy<Value = bool> {
    bool::weighted(of)
}

fn label(device: impl Strategy<Value = usize>) -> impl Strategy<Value = Transition> {
    (device, option::of(0..SITES.len())).prop_map(|(device, site)| Transition::Label { device, site })
}

fn revoke(device: impl Strategy<Value = usize>, of: f64) -> impl Strategy<Value = Transition> {
    (device, chance(of)).prop_map(|(device, revoked)| Transition::Revoke { device, revoked })
}

fn register(device: impl Strategy<Value = usize>) -> impl Strategy<Value = Transition> {
    (device, chance(0.75)).prop_map(|(device, approved)| Transition::Register { device, approved })
}

fn adjust(application: impl Strategy<Value = usize>) -> impl Strategy<Value = Transition> {
    (application, option::of(0..=SETTING_MAX), option::of(0..HARDWARE.len()))
        .prop_map(|(application, value, device)| Transition::Adjust { application, value, device })
}

fn provide_modules() -> impl Strategy<Value = Transition> {
    (0..SIZES, 0..SIZES).prop_map(|(first, second)| Transition::ProvideModules { sizes: [first, second] })
}

fn want(application: impl Strategy<Value = usize>) -> impl Strategy<Value = Transition> {
    let module = prop_oneof![
        2 => (0..SIZES).prop_map(Source::Inline),
        2 => (0..MODULES.len()).prop_map(Source::Module),
        2 => Just(Source::Once),
        1 => Just(Source::Traps),
    ];
    let selector = prop_oneof![
        2 => Just(None),
        2 => (0..SITES.len()).prop_map(|site| Some(Selector::Site(site))),
        1 => Just(Some(Selector::All)),
    ];
    let devices = sample::subsequence((0..HARDWARE.len()).collect::<Vec<_>>(), 0..HARDWARE.len());
    (application, devices, selector, module, chance(0.25)).prop_map(
        |(application, devices, selector, module, slow)| {
            let wanted = Wanted { devices, selector, module, slow };
            Transition::Want { application, wanted }
        },
    )
}
