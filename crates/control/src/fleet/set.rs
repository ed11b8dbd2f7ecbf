//! The desired set of one device: which Applications, in which order, under which revision.

use std::sync::Arc;

use wasmbed_api::{ApplicationConfig, DeviceFacts, FINISHED_MAX, ReasonCode};
use wasmbed_protocol::{ApplicationUid, SpecHash, limits::DESIRED_MAX};

use super::{
    application_entry::Application,
    assignment::Assigned,
    config::NAMES_IN_MESSAGE_MAX,
    fit::{Holder, plan_fit, plan_room},
    module::{ModuleFacts, ModuleRefusal},
    record::{ApplicationId, Placement, Prepared},
    secret::is_of_secrets,
};
use crate::ObjectKey;

/// An Application that a device is a target of.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    id: ApplicationId,
    uid: ApplicationUid,
    key: &'a ObjectKey,
    created_unix_s: i64,
    config: &'a ApplicationConfig,
    offer: CandidateModule<'a>,
    /// The device has it already, or may have it: it stays on an unschedulable device.
    present: bool,
    /// The device ran it to an end for good: it holds no memory, and its place is anyone's who wants it.
    ended: bool,
    /// It ended there and has left its place; the result is written down.
    finished: bool,
    /// What goes on there of an earlier generation, if this one can't run there.
    earlier: Earlier<'a>,
}

impl<'a> Candidate<'a> {
    /// An Application with the facts of its module, if that is there; whether the device has it already, or may have it.
    pub(super) fn new(
        id: ApplicationId,
        application: &'a Application,
        module: Option<&'a ModuleFacts>,
        present: bool,
    ) -> Option<Self> {
        Some(Self {
            id,
            uid: application.uid(),
            key: application.key(),
            created_unix_s: application.created_unix_s(),
            config: &application.spec().config,
            offer: CandidateModule::new(application.prepared(), module)?,
            present,
            ended: false,
            finished: false,
            earlier: Earlier::Nothing,
        })
    }

    /// The device ran it to an end for good.
    pub(super) fn ended(self, ended: bool) -> Self {
        Self { ended, ..self }
    }

    /// It has left its place there; the result is written down.
    pub(super) fn finished(self, finished: bool) -> Self {
        Self { finished, ..self }
    }

    /// What goes on there of an earlier generation.
    pub(super) fn earlier(self, earlier: Earlier<'a>) -> Self {
        Self { earlier, ..self }
    }
}

/// What a device has of an earlier generation of an Application.
#[derive(Clone, Copy, Debug)]
pub(super) enum Earlier<'a> {
    /// Nothing that runs.
    Nothing,
    /// This.
    Known(&'a Arc<Assigned>),
    /// It runs something that only it and its gateway know.
    Unknown,
}

/// An Application in the set of a device.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    id: ApplicationId,
    uid: ApplicationUid,
    assigned: Arc<Assigned>,
}

impl Member {
    pub(super) fn id(&self) -> ApplicationId {
        self.id
    }

    pub(super) fn uid(&self) -> ApplicationUid {
        self.uid
    }

    /// What the device is to run of it.
    pub(super) fn assigned(&self) -> &Arc<Assigned> {
        &self.assigned
    }
}

/// What there is to send of an Application.
#[derive(Clone, Debug)]
enum CandidateModule<'a> {
    /// This.
    Ready(&'a Arc<Assigned>, &'a ModuleFacts),
    /// What was sent before, to those that have it; its Module or Secrets are missing, or what it is now no device can run.
    Retained(&'a Arc<Assigned>, &'a ModuleRefusal),
    /// Nothing, and what a device that has it works to is unknown.
    Unknown(&'a ModuleRefusal),
}

impl<'a> CandidateModule<'a> {
    fn new(prepared: &'a Prepared, module: Option<&'a ModuleFacts>) -> Option<Self> {
        Some(match (prepared, module) {
            (Prepared::Ready(assigned), Some(module)) => Self::Ready(assigned, module),
            (
                Prepared::SourceMissing { kept: Some(assigned), refusal, .. }
                | Prepared::Refused { kept: Some(assigned), refusal },
                _,
            ) => Self::Retained(assigned, refusal),
            (
                Prepared::SourceMissing { kept: None, refusal, .. }
                | Prepared::Refused { kept: None, refusal },
                _,
            ) => Self::Unknown(refusal),
            // It is prepared anew whenever its Module comes or goes.
            (Prepared::Ready(_), None) => return None,
        })
    }
}

/// The outcome of planning one device.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SetPlan {
    /// For each candidate.
    pub placements: Vec<(ApplicationId, Placement)>,
    /// The set; none if the device is to be left alone, since something about it is unknown.
    pub content: Option<Vec<Member>>,
    /// Ended ones whose results are to be written down, so that they can leave the set.
    pub leaving: Vec<ApplicationId>,
}

/// Plans one device. The oldest Applications come first (then by name) and keep their place: the one that does not fit any
/// more, by number or by the memory that all take together, is always the same one. A place is for what runs or will run
/// again: one that ended for good stays in the set while nobody needs its place. Of one that can't run there the device
/// keeps the generation that it has.
///
/// `unknown`: what else keeps the set from being told anew, as [`beside`] says it.
pub(super) fn plan_set(
    mut candidates: Vec<Candidate<'_>>,
    facts: Option<&DeviceFacts>,
    unschedulable: bool,
    unknown: Option<ModuleRefusal>,
) -> SetPlan {
    let Some(facts) = facts else {
        let placement = |candidate: Candidate<'_>| match candidate.offer {
            _ if candidate.finished => (candidate.id, Placement::Finished),
            CandidateModule::Ready(..) | CandidateModule::Retained(..) | CandidateModule::Unknown(_) => {
                (candidate.id, Placement::FactsUnknown)
            }
        };
        return SetPlan {
            placements: candidates.into_iter().map(placement).collect(),
            content: None,
            leaving: Vec::new(),
        };
    };
    candidates.sort_by_key(|candidate| (candidate.created_unix_s, candidate.key));
    let mut room = Room::of(facts);
    let mut placements = Vec::with_capacity(candidates.len());
    let mut members = Vec::new();
    let mut leaving = Vec::new();
    let mut frozen = unknown;
    for (index, candidate) in candidates.iter().enumerate() {
        let (placement, part) = judge(candidate, facts, unschedulable, &room);
        match part {
            Part::None => {}
            Part::Member(assigned) => {
                members.push((index, assigned));
                if !candidate.ended {
                    room.holders.push(Holder {
                        name: &candidate.key.name,
                        bytes: assigned.footprint.bytes(facts),
                        loading_bytes: assigned.footprint.loading_bytes(facts),
                    });
                }
            }
            Part::Unknown(refusal) => {
                frozen = frozen.or_else(|| Some(beside(candidate.key, &refusal)));
                leaving.extend(candidate.ended.then_some(candidate.id));
            }
        }
        placements.push((candidate.id, placement));
    }
    give_places(&candidates, &room, &mut members, &mut placements, &mut leaving);
    if let Some(refusal) = &frozen {
        refuse_beside(refusal, &candidates, &mut placements);
    }
    let member = |(index, assigned): (usize, &Arc<Assigned>)| {
        let (id, uid) = (candidates[index].id, candidates[index].uid);
        Member { id, uid, assigned: Arc::clone(assigned) }
    };
    let content = frozen.is_none().then(|| members.into_iter().map(member).collect());
    SetPlan { placements, content, leaving }
}

/// Has ended ones leave where there are more members than places. Until their results are written down, and so that no
/// result is lost, the newest that the device does not have yet wait.
fn give_places(
    candidates: &[Candidate<'_>],
    room: &Room<'_>,
    members: &mut Vec<(usize, &Arc<Assigned>)>,
    placements: &mut [(ApplicationId, Placement)],
    leaving: &mut Vec<ApplicationId>,
) {
    let over = members.len().saturating_sub(room.applications_max);
    if over == 0 {
        return;
    }
    let finished = candidates.iter().filter(|candidate| candidate.finished).count();
    let left = FINISHED_MAX.saturating_sub(finished + leaving.len());
    let ended: Vec<&Candidate<'_>> =
        members.iter().map(|(index, _)| &candidates[*index]).filter(|candidate| candidate.ended).collect();
    leaving.extend(ended.iter().take(over.min(left)).map(|candidate| candidate.id));
    let newest = members.iter().rev().map(|(index, _)| *index);
    let waiting: Vec<usize> =
        newest.filter(|index| !candidates[*index].ended && !candidates[*index].present).take(over).collect();
    // The oldest of those that wait get the places that come free; beyond what can be remembered nothing does.
    for (count, index) in waiting.iter().rev().enumerate() {
        placements[*index].1 =
            if count < left { Placement::Waiting } else { Placement::Refused(remembered(&ended)) };
    }
    members.retain(|(index, _)| !waiting.contains(index));
    members.truncate(DESIRED_MAX);
}

fn remembered(ended: &[&Candidate<'_>]) -> ModuleRefusal {
    let names: Vec<&str> =
        ended.iter().take(NAMES_IN_MESSAGE_MAX).map(|candidate| candidate.key.name.as_str()).collect();
    ModuleRefusal {
        reason: ReasonCode::TooManyApplications,
        message: format!(
            "the device's places are taken by applications that have ended ({}), and {FINISHED_MAX} ended ones are remembered of it already; delete Applications that have ended",
            names.join(", ")
        ),
    }
}

/// Why nothing can be added to a device that has an Application whose assignment there is unknown.
fn beside(key: &ObjectKey, unknown: &ModuleRefusal) -> ModuleRefusal {
    let message = match unknown.reason {
        ReasonCode::ModuleNotFound => format!(
            "the device runs {key}, whose Module is missing; nothing can be added there until that Module is back or {key} is deleted"
        ),
        reason if is_of_secrets(reason) => format!(
            "the device runs {key}, whose config.env_from can't be read ({}); nothing can be added there until that is put right or {key} is deleted",
            reason.as_str()
        ),
        _ => format!(
            "the device runs an earlier generation of {key} and can't run the present one; nothing can be added there until that is corrected or {key} is deleted"
        ),
    };
    ModuleRefusal { reason: unknown.reason, message }
}

/// The same for an Application that can't be read.
pub(super) fn beside_unreadable(key: &ObjectKey) -> ModuleRefusal {
    let message = format!(
        "the device runs {key}, which this version of the controller can't read; nothing can be added there until the controller is upgraded or {key} is corrected"
    );
    ModuleRefusal { reason: ReasonCode::Unsupported, message }
}

/// The set of a device can't be told anew while a member's assignment is unknown, so nothing is added to it either.
fn refuse_beside(
    beside: &ModuleRefusal,
    candidates: &[Candidate<'_>],
    placements: &mut [(ApplicationId, Placement)],
) {
    for ((_, placement), candidate) in placements.iter_mut().zip(candidates) {
        if matches!(placement, Placement::Placed | Placement::Waiting) && !candidate.present {
            *placement = Placement::Refused(beside.clone());
        }
    }
}

/// What is left of a device while it is filled.
struct Room<'a> {
    applications_max: usize,
    /// Who has a place, each with the bytes that it takes of the arena.
    holders: Vec<Holder<'a>>,
}

impl Room<'_> {
    fn of(facts: &DeviceFacts) -> Self {
        let limit = usize::try_from(facts.applications_max).unwrap_or(0);
        Self { applications_max: limit.min(DESIRED_MAX), holders: Vec::new() }
    }

    fn take(&self, assigned: &Assigned, facts: &DeviceFacts) -> Result<(), ModuleRefusal> {
        if self.holders.len() < self.applications_max {
            return plan_room(&assigned.footprint, facts, &self.holders);
        }
        let shown = self.holders.iter().take(NAMES_IN_MESSAGE_MAX).map(|holder| holder.name);
        let names = shown.collect::<Vec<_>>().join(", ");
        let more = match self.holders.len().saturating_sub(NAMES_IN_MESSAGE_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Err(ModuleRefusal {
            reason: ReasonCode::TooManyApplications,
            message: format!(
                "the device runs at most {} applications, and older ones fill it: {names}{more}",
                self.applications_max
            ),
        })
    }
}

/// What a candidate is in the set.
enum Part<'a> {
    None,
    Member(&'a Arc<Assigned>),
    /// The device runs something of it that is unknown here, and is left alone.
    Unknown(ModuleRefusal),
}

fn judge<'a>(
    candidate: &Candidate<'a>,
    facts: &DeviceFacts,
    unschedulable: bool,
    room: &Room<'_>,
) -> (Placement, Part<'a>) {
    if candidate.finished {
        return (Placement::Finished, Part::None);
    }
    match candidate.offer {
        CandidateModule::Unknown(refusal) | CandidateModule::Retained(_, refusal) if !candidate.present => {
            (Placement::Refused(refusal.clone()), Part::None)
        }
        CandidateModule::Unknown(refusal) | CandidateModule::Retained(_, refusal)
            if matches!(candidate.earlier, Earlier::Known(_)) =>
        {
            keep_earlier(candidate, facts, room, refusal.clone())
        }
        CandidateModule::Unknown(refusal) => (Placement::Retained, Part::Unknown(refusal.clone())),
        CandidateModule::Retained(assigned, _) if candidate.ended => {
            (Placement::Retained, Part::Member(assigned))
        }
        CandidateModule::Ready(assigned, _) if candidate.ended => (Placement::Placed, Part::Member(assigned)),
        CandidateModule::Retained(assigned, _) => match room.take(assigned, facts) {
            Ok(()) => (Placement::Retained, Part::Member(assigned)),
            Err(refusal) => (Placement::Refused(refusal), Part::None),
        },
        CandidateModule::Ready(assigned, module) => match plan_fit(module, candidate.config, facts) {
            Ok(()) if unschedulable && !candidate.present => (Placement::Unschedulable, Part::None),
            Ok(()) => match room.take(assigned, facts) {
                Ok(()) => (Placement::Placed, Part::Member(assigned)),
                Err(refusal) => keep_earlier(candidate, facts, room, refusal),
            },
            Err(refusal) => match candidate.earlier {
                Earlier::Unknown => (Placement::Refused(refusal.clone()), Part::Unknown(refusal)),
                Earlier::Known(_) | Earlier::Nothing => keep_earlier(candidate, facts, room, refusal),
            },
        },
    }
}

/// The device can't run this generation: it keeps the one that it has if that is known and older Applications leave it room. One
/// that is unknown gives way to them: were the set left alone, they would wait for it and it for them.
fn keep_earlier<'a>(
    candidate: &Candidate<'a>,
    facts: &DeviceFacts,
    room: &Room<'_>,
    refusal: ModuleRefusal,
) -> (Placement, Part<'a>) {
    let part = match candidate.earlier {
        Earlier::Known(assigned) if room.take(assigned, facts).is_ok() => Part::Member(assigned),
        Earlier::Known(_) | Earlier::Unknown | Earlier::Nothing => Part::None,
    };
    (Placement::Refused(refusal), part)
}

/// What a device last said of the set that it works to.
#[derive(Clone, Debug)]
pub(super) struct LastReport {
    revision: u64,
    content: SetContent,
}

impl LastReport {
    pub(super) fn new(revision: u64, mut content: Vec<(ApplicationUid, SpecHash)>) -> Self {
        content.sort_unstable();
        Self { revision, content }
    }
}

/// The desired set of a device, under its revision.
///
/// A revision identifies one content once a gateway may have seen it: [`plan_revision`] gives the next set its revision,
/// [`PlannedSet::issue`] says that one is sent, [`PlannedSet::give_way`] that another content has the revision already.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlannedSet {
    revision: u64,
    content: SetContent,
    members: Vec<Member>,
    /// A gateway may have seen it: its revision can't be given to other content any more.
    issued: bool,
    /// What was issued before, while this one is not: the fleet may come back to it.
    before: Option<(u64, SetContent)>,
}

/// Members of a set by UID, each with what it is to run.
type SetContent = Vec<(ApplicationUid, SpecHash)>;

impl PlannedSet {
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Members by ascending UID, each with what it is to run.
    pub(super) fn content(&self) -> &[(ApplicationUid, SpecHash)] {
        &self.content
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(super) fn member(&self, id: ApplicationId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Whether a gateway may have seen it.
    pub(super) fn is_issued(&self) -> bool {
        self.issued
    }

    /// It is sent to a gateway.
    pub(super) fn issue(&mut self) {
        self.issued = true;
    }

    /// A gateway names the revision `held` of the device: if that is not lower, other content has it, and this set gets a new one.
    pub(super) fn give_way(&mut self, held: u64) -> bool {
        let taken = held >= self.revision;
        if taken {
            self.revision = held.saturating_add(1);
            self.issued = false;
        }
        taken
    }
}

/// Gives content its revision: the same as long as the content is the same, else one more than the highest seen.
/// `seen` is the highest that any gateway, the device or its status has named.
pub(super) fn plan_revision(
    members: Vec<Member>,
    current: Option<&PlannedSet>,
    seen: u64,
    report: Option<&LastReport>,
) -> PlannedSet {
    let mut content: SetContent =
        members.iter().map(|member| (member.uid, member.assigned.spec_hash)).collect();
    content.sort_unstable();
    if let Some(current) = current {
        // A revision that another controller gave away, or that was given away before ours went out, is not ours.
        let taken = seen > current.revision || (seen == current.revision && !current.issued);
        if current.content == content && !taken {
            return PlannedSet { members, ..current.clone() };
        }
        let before = match &current.before {
            _ if current.issued => Some((current.revision, current.content.clone())),
            before => before.clone().filter(|(revision, _)| seen <= *revision),
        };
        if let Some((revision, _)) = before.as_ref().filter(|(_, known)| !current.issued && *known == content)
        {
            return PlannedSet { revision: *revision, content, members, issued: true, before: None };
        }
        let revision = current.revision.max(seen) + u64::from(current.issued || seen >= current.revision);
        return PlannedSet { revision, content, members, issued: false, before };
    }
    if report.is_some_and(|report| report.revision == seen && seen > 0 && report.content == content) {
        return PlannedSet { revision: seen, content, members, issued: true, before: None };
    }
    PlannedSet { revision: seen.saturating_add(1), content, members, issued: false, before: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::testing::{device_facts, module};

    const HASH: SpecHash = SpecHash([5; 32]);

    fn uid(n: u8) -> ApplicationUid {
        ApplicationUid([n; 16])
    }

    fn assigned(spec_hash: SpecHash) -> Assigned {
        let module = module(1, 100);
        let footprint = module.needs.as_ref().unwrap().footprint;
        Assigned {
            settings: None,
            spec_hash,
            spec: crate::Hidden::default(),
            digest: module.digest,
            bytes: module.size,
            footprint,
        }
    }

    fn content(numbers: &[u8]) -> Vec<Member> {
        let assigned = Arc::new(assigned(HASH));
        let member = |n: &u8| Member {
            id: ApplicationId(u32::from(*n)),
            uid: uid(*n),
            assigned: Arc::clone(&assigned),
        };
        numbers.iter().map(member).collect()
    }

    #[test]
    fn a_revision_moves_with_the_content_only() {
        let first = plan_revision(content(&[1]), None, 0, None);
        assert_eq!(first.revision, 1);
        let sent = PlannedSet { issued: true, ..first };
        assert_eq!(plan_revision(content(&[1]), Some(&sent), 1, None), sent);
        assert_eq!(plan_revision(content(&[1, 2]), Some(&sent), 1, None).revision, 2);
        assert_eq!(plan_revision(content(&[]), Some(&sent), 9, None).revision, 10);
    }

    #[test]
    fn content_that_was_never_sent_does_not_use_up_a_revision() {
        let first = plan_revision(content(&[1]), None, 4, None);
        assert_eq!(first.revision, 5);
        assert_eq!(plan_revision(content(&[2]), Some(&first), 4, None).revision, 5);
    }

    #[test]
    fn content_that_comes_back_before_the_next_was_sent_has_its_revision_still() {
        let sent = PlannedSet { issued: true, ..plan_revision(content(&[1]), None, 4, None) };
        let next = plan_revision(content(&[1, 2]), Some(&sent), 5, None);
        assert_eq!((next.revision, next.issued), (6, false));
        let back = plan_revision(content(&[1]), Some(&next), 5, None);
        assert_eq!((back.revision, back.issued), (5, true));
        let taken = plan_revision(content(&[1]), Some(&next), 6, None);
        assert_eq!((taken.revision, taken.issued), (7, false));
    }

    #[test]
    fn a_revision_that_another_controller_gave_away_is_not_ours() {
        let ours = plan_revision(content(&[1]), None, 4, None);
        assert_eq!(plan_revision(content(&[1]), Some(&ours), 5, None).revision, 6);
        let sent = PlannedSet { issued: true, ..ours };
        assert_eq!(plan_revision(content(&[1]), Some(&sent), 5, None).revision, 5);
        assert_eq!(plan_revision(content(&[1]), Some(&sent), 6, None).revision, 7);
    }

    #[test]
    fn a_new_leader_takes_over_a_revision_that_the_device_confirms() {
        let same = [(uid(2), HASH), (uid(1), HASH)];
        let report = LastReport::new(7, same.to_vec());
        let plan = plan_revision(content(&[1, 2]), None, 7, Some(&report));
        assert_eq!((plan.revision, plan.issued), (7, true));
        let other = LastReport::new(7, same[..1].to_vec());
        assert_eq!(plan_revision(content(&[1, 2]), None, 7, Some(&other)).revision, 8);
        assert_eq!(plan_revision(content(&[1, 2]), None, 8, Some(&report)).revision, 9);
    }

    struct Fixture {
        keys: Vec<ObjectKey>,
        assigned: Arc<Assigned>,
        module: ModuleFacts,
        config: ApplicationConfig,
    }

    impl Fixture {
        fn new(count: u32) -> Self {
            let keys = (0..count)
                .map(|n| ObjectKey { namespace: "default".to_owned(), name: format!("app-{n:02}") })
                .collect();
            let (assigned, module) = (Arc::new(assigned(HASH)), module(1, 100));
            Self { keys, assigned, module, config: ApplicationConfig::default() }
        }

        fn candidates(&self) -> Vec<Candidate<'_>> {
            let candidate = |(index, key)| Candidate {
                id: ApplicationId(index),
                uid: uid((index % 250) as u8),
                key,
                created_unix_s: 0,
                config: &self.config,
                offer: CandidateModule::Ready(&self.assigned, &self.module),
                present: false,
                ended: false,
                finished: false,
                earlier: Earlier::Nothing,
            };
            (0..).zip(&self.keys).map(candidate).collect()
        }
    }

    fn missing() -> ModuleRefusal {
        ModuleRefusal { reason: ReasonCode::ModuleNotFound, message: "no such Module".to_owned() }
    }

    #[test]
    fn an_ended_one_leaves_its_place_to_the_newest_once_its_result_is_written_down() {
        let fixture = Fixture::new(11);
        let mut candidates = fixture.candidates();
        candidates[..10].iter_mut().for_each(|candidate| candidate.present = true);
        let full = plan_set(candidates.clone(), Some(&device_facts()), false, None);
        assert!(matches!(placement(&full, 10), Placement::Refused(_)), "ten run");
        (candidates[3].ended, candidates[5].ended) = (true, true);
        let plan = plan_set(candidates.clone(), Some(&device_facts()), false, None);
        assert_eq!(plan.leaving, [ApplicationId(3)], "one place is wanted");
        assert_eq!((placement(&plan, 10), placement(&plan, 3)), (&Placement::Waiting, &Placement::Placed));
        assert_eq!(plan.content.map(|content| content.len()), Some(10), "the device keeps what it has");
        candidates[3].finished = true;
        let plan = plan_set(candidates, Some(&device_facts()), false, None);
        assert_eq!((placement(&plan, 10), placement(&plan, 3)), (&Placement::Placed, &Placement::Finished));
        assert!(plan.leaving.is_empty());
        assert_eq!(plan.content.map(|content| content.len()), Some(10));
    }

    #[test]
    fn an_ended_one_holds_no_memory() {
        let fixture = Fixture::new(2);
        let facts = DeviceFacts { memory_bytes: 70_000, ..device_facts() };
        let mut candidates = fixture.candidates();
        (candidates[0].present, candidates[0].ended) = (true, true);
        let plan = plan_set(candidates, Some(&facts), false, None);
        assert_eq!((placement(&plan, 0), placement(&plan, 1)), (&Placement::Placed, &Placement::Placed));
    }

    #[test]
    fn beyond_what_can_be_remembered_a_new_one_is_refused_with_the_remedy() {
        let fixture = Fixture::new(10 + FINISHED_MAX as u32 + 1);
        let mut candidates = fixture.candidates();
        for candidate in &mut candidates[..FINISHED_MAX] {
            candidate.finished = true;
        }
        for candidate in &mut candidates[FINISHED_MAX..FINISHED_MAX + 10] {
            (candidate.present, candidate.ended) = (true, true);
        }
        let plan = plan_set(candidates, Some(&device_facts()), false, None);
        assert!(plan.leaving.is_empty());
        let Placement::Refused(refusal) = placement(&plan, 10 + FINISHED_MAX as u32) else { panic!() };
        assert_eq!(refusal.reason, ReasonCode::TooManyApplications);
        assert!(refusal.message.contains("delete Applications that have ended"), "{}", refusal.message);
    }

    fn placement(plan: &SetPlan, id: u32) -> &Placement {
        &plan.placements.iter().find(|(other, _)| other.0 == id).unwrap().1
    }

    #[test]
    fn the_eleventh_is_refused_and_always_the_same_one() {
        let fixture = Fixture::new(11);
        let mut candidates = fixture.candidates();
        candidates[0].created_unix_s = 100;
        candidates.reverse();
        let plan = plan_set(candidates, Some(&device_facts()), false, None);
        assert_eq!(plan.content.as_ref().map(Vec::len), Some(10));
        let Placement::Refused(refusal) = placement(&plan, 0) else { panic!("{:?}", plan.placements) };
        assert_eq!(refusal.reason, ReasonCode::TooManyApplications);
        assert_eq!(*placement(&plan, 10), Placement::Placed);
    }

    #[test]
    fn what_does_not_fit_beside_older_ones_is_refused_and_smaller_ones_still_fit() {
        let fixture = Fixture::new(4);
        // Three of 65,696 bytes fit, a fourth does not.
        let facts = DeviceFacts { memory_bytes: 3 * 65_696 + 1_000, ..device_facts() };
        let mut candidates = fixture.candidates();
        candidates[1].created_unix_s = 100;
        candidates[1].present = true;
        candidates.reverse();
        let plan = plan_set(candidates.clone(), Some(&facts), false, None);
        assert_eq!(plan.content.as_ref().map(Vec::len), Some(3));
        let Placement::Refused(refusal) = placement(&plan, 1) else {
            panic!("the newest: {:?}", plan.placements)
        };
        assert_eq!(refusal.reason, ReasonCode::OutOfMemory);
        assert!(
            refusal.message.contains("has 1000 of 198088 left beside app-00 (65696), app-02"),
            "{refusal:?}"
        );

        let mut small = module(2, 100);
        small.needs.as_mut().unwrap().footprint.linear_bytes = 0;
        let footprint = small.needs.as_ref().unwrap().footprint;
        let assigned = Arc::new(Assigned { footprint, ..(*fixture.assigned).clone() });
        let newest = candidates.iter_mut().find(|candidate| candidate.id.0 == 1).unwrap();
        newest.offer = CandidateModule::Ready(&assigned, &small);
        let plan = plan_set(candidates, Some(&facts), false, None);
        assert_eq!(*placement(&plan, 1), Placement::Placed, "160 bytes are left");
    }

    #[test]
    fn what_is_kept_for_a_missing_module_holds_its_memory() {
        let fixture = Fixture::new(2);
        let facts = DeviceFacts { memory_bytes: 70_000, ..device_facts() };
        let mut candidates = fixture.candidates();
        let refusal = missing();
        candidates[0].offer = CandidateModule::Retained(&fixture.assigned, &refusal);
        candidates[0].present = true;
        let plan = plan_set(candidates, Some(&facts), false, None);
        assert_eq!(*placement(&plan, 0), Placement::Retained);
        assert!(
            matches!(placement(&plan, 1), Placement::Refused(refusal) if refusal.reason == ReasonCode::OutOfMemory)
        );
    }

    #[test]
    fn a_device_without_facts_is_left_alone() {
        let fixture = Fixture::new(1);
        let plan = plan_set(fixture.candidates(), None, false, None);
        assert_eq!(plan.content, None);
        assert_eq!(*placement(&plan, 0), Placement::FactsUnknown);
    }

    #[test]
    fn an_unschedulable_device_keeps_what_it_has_and_gets_nothing_new() {
        let fixture = Fixture::new(2);
        let mut candidates = fixture.candidates();
        candidates[0].present = true;
        let plan = plan_set(candidates, Some(&device_facts()), true, None);
        assert_eq!(plan.content.as_ref().map(Vec::len), Some(1));
        assert_eq!(*placement(&plan, 0), Placement::Placed);
        assert_eq!(*placement(&plan, 1), Placement::Unschedulable);
    }

    #[test]
    fn a_missing_module_freezes_a_device_that_may_run_it_and_no_other() {
        let fixture = Fixture::new(2);
        let mut candidates = fixture.candidates();
        let refusal = missing();
        candidates[0].offer = CandidateModule::Unknown(&refusal);
        let absent = plan_set(candidates.clone(), Some(&device_facts()), false, None);
        assert_eq!(absent.content.as_ref().map(Vec::len), Some(1));
        candidates[0].present = true;
        let frozen = plan_set(candidates.clone(), Some(&device_facts()), false, None);
        assert_eq!(frozen.content, None);
        let Placement::Refused(beside) = placement(&frozen, 1) else { panic!("{:?}", frozen.placements) };
        assert!(beside.message.contains("default/app-00, whose Module is missing"), "{}", beside.message);
        candidates[0].offer = CandidateModule::Retained(&fixture.assigned, &refusal);
        let kept = plan_set(candidates, Some(&device_facts()), false, None);
        assert_eq!(kept.content.map(|content| content.len()), Some(2));
    }

    #[test]
    fn a_device_that_cannot_run_the_present_generation_keeps_the_one_that_it_has() {
        let fixture = Fixture::new(2);
        let large = ModuleFacts { size: 2 << 20, ..module(2, 100) };
        let before = Arc::new(assigned(SpecHash([4; 32])));
        let mut candidates = fixture.candidates();
        candidates[0].offer = CandidateModule::Ready(&fixture.assigned, &large);
        candidates[0].present = true;
        candidates[0].earlier = Earlier::Known(&before);
        let kept = plan_set(candidates.clone(), Some(&device_facts()), false, None);
        assert!(
            matches!(placement(&kept, 0), Placement::Refused(refusal) if refusal.reason == ReasonCode::ModuleTooLarge)
        );
        assert_eq!(*placement(&kept, 1), Placement::Placed);
        let hashes: Vec<_> = kept.content.unwrap().iter().map(|member| member.assigned.spec_hash).collect();
        assert_eq!(hashes, [before.spec_hash, HASH]);

        // What it keeps holds its memory.
        let facts = DeviceFacts { memory_bytes: 70_000, ..device_facts() };
        let full = plan_set(candidates.clone(), Some(&facts), false, None);
        assert!(matches!(placement(&full, 1), Placement::Refused(_)));

        // What it has is known to the device and its gateway alone: it is left alone.
        candidates[0].earlier = Earlier::Unknown;
        let frozen = plan_set(candidates.clone(), Some(&device_facts()), false, None);
        assert_eq!(frozen.content, None);
        let Placement::Refused(beside) = placement(&frozen, 1) else { panic!("{:?}", frozen.placements) };
        assert!(beside.message.contains("an earlier generation of default/app-00"), "{}", beside.message);

        // Older ones need its room: it does not keep them out, known or not.
        let facts = DeviceFacts { applications_max: 1, ..device_facts() };
        candidates[0].offer = CandidateModule::Ready(&fixture.assigned, &fixture.module);
        candidates[0].created_unix_s = 100;
        for earlier in [Earlier::Known(&before), Earlier::Unknown] {
            candidates[0].earlier = earlier;
            let plan = plan_set(candidates.clone(), Some(&facts), false, None);
            assert_eq!(*placement(&plan, 1), Placement::Placed);
            assert_eq!(plan.content.map(|content| content.len()), Some(1));
        }

        // It has none.
        candidates[0].offer = CandidateModule::Ready(&fixture.assigned, &large);
        candidates[0].earlier = Earlier::Nothing;
        let plan = plan_set(candidates, Some(&device_facts()), false, None);
        assert_eq!(plan.content.map(|content| content.len()), Some(1));
    }

    #[test]
    fn what_does_not_fit_takes_no_room_from_others() {
        let fixture = Fixture::new(2);
        let broken = ModuleFacts::analyze(b"no module");
        let mut candidates = fixture.candidates();
        candidates[0].offer = CandidateModule::Ready(&fixture.assigned, &broken);
        let facts = DeviceFacts { applications_max: 1, ..device_facts() };
        let plan = plan_set(candidates, Some(&facts), false, None);
        assert!(matches!(placement(&plan, 0), Placement::Refused(_)));
        assert_eq!(*placement(&plan, 1), Placement::Placed);
    }
}
