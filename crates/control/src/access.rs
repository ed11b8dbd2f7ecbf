//! What people may do at a gateway: what is asked of the Kubernetes API, and how long its answers count.
//!
//! ```text
//!              ┌─ an answer that counts ──> Allowed, Denied
//! look ────────┼─ none ──────────────────> Ask ── the API's answer ──> handle_answer
//!              └─ no place left ─────────> Busy
//! ```
//!
//! A user has [`ANSWERS_OF_USER_MAX`] places, and an answer keeps its place for as long as it counts: so many questions does the API
//! get in the name of one user in that time, whatever that user asks for.

use std::{collections::BTreeMap, fmt, sync::Arc};

use wasmbed_api::GROUP;

use crate::{Now, harmless};

/// How long a yes counts, ms: a right that is taken back ends within this, and streams that stand with it.
pub const ALLOWED_MS: u64 = 10_000;
/// How long a no counts, ms: a right that was just given is there soon.
pub const DENIED_MS: u64 = 3_000;
/// Answers of one user at once.
pub const ANSWERS_OF_USER_MAX: usize = 32;
/// Users with answers at once.
pub const USERS_MAX: usize = 256;
/// Bytes of a name that a message repeats.
const SHOWN_BYTES_MAX: usize = 256;

/// A user as Kubernetes knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// Its name.
    pub user: String,
    /// Its groups.
    pub groups: Vec<String>,
}

/// Something that a user may do or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Action {
    /// As in a rule of RBAC.
    pub verb: &'static str,
    /// In the group `wasmbed.github.io`.
    pub resource: &'static str,
    /// Below the resource.
    pub subresource: &'static str,
    /// None: in all of them.
    pub namespace: Option<String>,
    /// None: all of them.
    pub name: Option<String>,
}

impl Action {
    /// Getting a certificate for gateways without being asked about.
    #[must_use]
    pub fn login() -> Self {
        Self { verb: "create", resource: "devicegateways", subresource: "login", namespace: None, name: None }
    }

    /// What allows to read lines of logs, each by itself: an application's on all devices, or a device's of all applications.
    #[must_use]
    pub fn read_logs(namespace: Option<&str>, application: Option<&str>, device: Option<&str>) -> Vec<Self> {
        let get = |resource, name: Option<&str>| Self {
            verb: "get",
            resource,
            subresource: "log",
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
        };
        match (application, device) {
            (None, Some(_)) => vec![get("devices", device)],
            (_, None) => vec![get("applications", application)],
            (Some(_), Some(_)) => vec![get("applications", application), get("devices", device)],
        }
    }

    /// What allows to read messages: a device's, or those of all devices.
    #[must_use]
    pub fn read_messages(namespace: Option<&str>, device: Option<&str>) -> Self {
        Self {
            verb: "get",
            resource: "devices",
            subresource: "messages",
            namespace: namespace.map(str::to_owned),
            name: device.map(str::to_owned),
        }
    }

    /// What allows to send messages to applications: on a device, or on all devices.
    #[must_use]
    pub fn send_messages(namespace: &str, device: Option<&str>) -> Self {
        Self { verb: "create", ..Self::read_messages(Some(namespace), device) }
    }

    /// What allows to read what settings of applications are: on a device, or on all devices.
    #[must_use]
    pub fn read_settings(namespace: &str, device: Option<&str>) -> Self {
        Self { subresource: "settings", ..Self::read_messages(Some(namespace), device) }
    }

    /// The rule of a Role or ClusterRole that allows it.
    #[must_use]
    pub fn rule(&self) -> String {
        let Self { verb, resource, subresource, .. } = self;
        format!("{{ apiGroups: [{GROUP}], resources: [{resource}/{subresource}], verbs: [{verb}] }}")
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, resource, subresource, namespace, name } = self;
        write!(f, "{verb} {resource}/{subresource}")?;
        if let Some(name) = name {
            write!(f, " {:?}", harmless(name, SHOWN_BYTES_MAX))?;
        }
        match namespace {
            Some(namespace) => write!(f, " in the namespace {:?}", harmless(namespace, SHOWN_BYTES_MAX)),
            None => f.write_str(" in all namespaces"),
        }
    }
}

/// What is known of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The API said yes.
    Allowed,
    /// The API said no.
    Denied,
    /// The API is to be asked; a place is kept for its answer.
    Ask,
    /// It is asked in the name of this user, or of all, as much as is allowed.
    Busy {
        /// When there will be a place, ms from now.
        retry_ms: u64,
    },
}

/// The API's answers that count.
#[derive(Debug, Default)]
pub struct Reviews {
    users: BTreeMap<Arc<Subject>, BTreeMap<Action, Kept>>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    answer: Option<bool>,
    until_ms: u64,
}

impl Reviews {
    /// Looks for an answer. [`Look::Ask`] keeps a place until [`Reviews::handle_answer`], and for as long as a yes counts at most.
    pub fn look(&mut self, now: Now, subject: &Subject, action: &Action) -> Look {
        let here = self.users.get(subject).and_then(|answers| answers.get(action));
        if let Some(kept) = here.filter(|kept| kept.until_ms > now.ms) {
            return match kept.answer {
                Some(true) => Look::Allowed,
                Some(false) => Look::Denied,
                // Someone asks already, and the place is for both.
                None => Look::Ask,
            };
        }
        match self.make_room(now, subject) {
            Ok(()) => {
                let answers = self.users.entry(Arc::new(subject.clone())).or_default();
                answers.insert(action.clone(), Kept { answer: None, until_ms: now.ms + ALLOWED_MS });
                Look::Ask
            }
            Err(until_ms) => Look::Busy { retry_ms: until_ms.saturating_sub(now.ms).max(1) },
        }
    }

    /// The API answered, or did not: then nothing is known, and the place is free.
    pub fn handle_answer(&mut self, now: Now, subject: &Subject, action: &Action, answer: Option<bool>) {
        let Some(answers) = self.users.get_mut(subject) else { return };
        let Some(kept) = answers.get_mut(action) else { return };
        match answer {
            Some(allowed) => {
                let counts_ms = if allowed { ALLOWED_MS } else { DENIED_MS };
                *kept = Kept { answer, until_ms: now.ms + counts_ms };
            }
            // Another one who asked may have got an answer.
            None if kept.answer.is_none() => drop(answers.remove(action)),
            None => {}
        }
        if answers.is_empty() {
            self.users.remove(subject);
        }
    }

    /// A place for one more answer of a user, or when there will be one.
    fn make_room(&mut self, now: Now, subject: &Subject) -> Result<(), u64> {
        let full = self.users.get(subject).is_some_and(|answers| answers.len() >= ANSWERS_OF_USER_MAX);
        let crowded = self.users.len() >= USERS_MAX && !self.users.contains_key(subject);
        if !full && !crowded {
            return Ok(());
        }
        self.users.retain(|_, answers| {
            answers.retain(|_, kept| kept.until_ms > now.ms);
            !answers.is_empty()
        });
        let first = |answers: &BTreeMap<Action, Kept>| answers.values().map(|kept| kept.until_ms).min();
        match self.users.get(subject) {
            Some(answers) if answers.len() >= ANSWERS_OF_USER_MAX => Err(first(answers).unwrap_or(now.ms)),
            None if self.users.len() >= USERS_MAX => {
                let gone =
                    |answers: &BTreeMap<Action, Kept>| answers.values().map(|kept| kept.until_ms).max();
                Err(self.users.values().filter_map(gone).min().unwrap_or(now.ms))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Now {
        Now { ms, unix_ms: ms }
    }

    fn subject(user: &str) -> Subject {
        Subject { user: user.to_owned(), groups: vec!["dev".to_owned()] }
    }

    fn logs(name: &str) -> Action {
        Action::read_logs(Some("lab"), Some(name), None).remove(0)
    }

    #[test]
    fn what_is_asked_names_the_narrowest_right() {
        let asked = |application, device| -> Vec<String> {
            let actions = Action::read_logs(Some("lab"), application, device);
            actions.iter().map(ToString::to_string).collect()
        };
        assert_eq!(asked(None, None), ["get applications/log in the namespace \"lab\""]);
        assert_eq!(asked(Some("a"), None), ["get applications/log \"a\" in the namespace \"lab\""]);
        assert_eq!(asked(None, Some("d")), ["get devices/log \"d\" in the namespace \"lab\""]);
        assert_eq!(asked(Some("a"), Some("d")).len(), 2, "either will do");
        let all = Action::read_logs(None, None, None).remove(0);
        assert_eq!(all.to_string(), "get applications/log in all namespaces");
        assert_eq!(
            all.rule(),
            "{ apiGroups: [wasmbed.github.io], resources: [applications/log], verbs: [get] }"
        );
        let sent = Action::send_messages("lab", Some("d"));
        assert_eq!(sent.to_string(), "create devices/messages \"d\" in the namespace \"lab\"");
        let messages = |device| Action::read_messages(Some("lab"), device).to_string();
        assert_eq!(messages(None), "get devices/messages in the namespace \"lab\"");
        assert_eq!(messages(Some("d")), "get devices/messages \"d\" in the namespace \"lab\"");
        assert_eq!(Action::login().to_string(), "create devicegateways/login in all namespaces");
    }

    #[test]
    fn an_answer_counts_for_its_time_and_for_its_user_and_question_alone() {
        let mut reviews = Reviews::default();
        let (ada, app) = (subject("ada"), logs("a"));
        assert_eq!(reviews.look(at(0), &ada, &app), Look::Ask);
        reviews.handle_answer(at(100), &ada, &app, Some(true));
        assert_eq!(reviews.look(at(100 + ALLOWED_MS - 1), &ada, &app), Look::Allowed);
        assert_eq!(reviews.look(at(100), &ada, &logs("b")), Look::Ask);
        assert_eq!(reviews.look(at(100), &subject("eve"), &app), Look::Ask);
        let other_groups = Subject { groups: Vec::new(), ..ada.clone() };
        assert_eq!(reviews.look(at(100), &other_groups, &app), Look::Ask);
        assert_eq!(reviews.look(at(100 + ALLOWED_MS), &ada, &app), Look::Ask, "it is over");
        reviews.handle_answer(at(20_000), &ada, &app, Some(false));
        assert_eq!(reviews.look(at(20_000 + DENIED_MS - 1), &ada, &app), Look::Denied);
        assert_eq!(reviews.look(at(20_000 + DENIED_MS), &ada, &app), Look::Ask);
    }

    #[test]
    fn no_answer_is_no_answer() {
        let mut reviews = Reviews::default();
        let (ada, app) = (subject("ada"), logs("a"));
        assert_eq!(reviews.look(at(0), &ada, &app), Look::Ask);
        reviews.handle_answer(at(1), &ada, &app, None);
        assert!(reviews.users.is_empty(), "its place is free");
        assert_eq!(reviews.look(at(2), &ada, &app), Look::Ask);
        // Two ask at once, and one of them gets an answer.
        assert_eq!(reviews.look(at(3), &ada, &app), Look::Ask);
        reviews.handle_answer(at(4), &ada, &app, Some(true));
        reviews.handle_answer(at(5), &ada, &app, None);
        assert_eq!(reviews.look(at(6), &ada, &app), Look::Allowed);
    }

    #[test]
    fn a_user_asks_no_more_than_its_share_and_takes_no_other_s() {
        let mut reviews = Reviews::default();
        let eve = subject("eve");
        for number in 0..ANSWERS_OF_USER_MAX {
            let app = logs(&number.to_string());
            assert_eq!(reviews.look(at(0), &eve, &app), Look::Ask);
            reviews.handle_answer(at(0), &eve, &app, Some(false));
        }
        assert_eq!(reviews.look(at(1_000), &eve, &logs("more")), Look::Busy { retry_ms: DENIED_MS - 1_000 });
        assert_eq!(reviews.look(at(1_000), &subject("ada"), &logs("a")), Look::Ask);
        assert_eq!(reviews.look(at(DENIED_MS), &eve, &logs("more")), Look::Ask);
        let mut reviews = Reviews::default();
        for number in 0..USERS_MAX {
            assert_eq!(reviews.look(at(0), &subject(&number.to_string()), &logs("a")), Look::Ask);
        }
        assert_eq!(reviews.look(at(0), &subject("ada"), &logs("a")), Look::Busy { retry_ms: ALLOWED_MS });
        assert_eq!(reviews.look(at(ALLOWED_MS), &subject("ada"), &logs("a")), Look::Ask);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Look(usize, usize),
        Answer(usize, usize, Option<bool>),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let (user, action) = (0..3_usize, 0..40_usize);
        prop_oneof![
            4 => (user.clone(), action.clone()).prop_map(|(user, action)| Step::Look(user, action)),
            3 => (user, action, any::<Option<bool>>()).prop_map(|(user, action, answer)| Step::Answer(user, action, answer)),
            1 => (0..4_000_u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Nobody is let in whom the API did not, within the time that its word counts.
        #[test]
        fn a_yes_was_said_and_still_counts(steps in proptest::collection::vec(step(), 0..200)) {
            let (mut reviews, mut now) = (Reviews::default(), 0);
            let mut said: BTreeMap<(usize, usize), (bool, u64)> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Wait(ms) => now += ms,
                    Step::Answer(user, action, answer) => {
                        let (subject, asked) = (subject(&user.to_string()), logs(&action.to_string()));
                        reviews.handle_answer(at(now), &subject, &asked, answer);
                        if let Some(allowed) = answer {
                            said.insert((user, action), (allowed, now));
                        }
                    }
                    Step::Look(user, action) => {
                        let look = reviews.look(at(now), &subject(&user.to_string()), &logs(&action.to_string()));
                        let said = said.get(&(user, action));
                        match look {
                            Look::Allowed => prop_assert!(said.is_some_and(|(allowed, at)| *allowed && now - at < ALLOWED_MS)),
                            Look::Denied => prop_assert!(said.is_some_and(|(allowed, at)| !allowed && now - at < DENIED_MS)),
                            Look::Ask => {}
                            Look::Busy { retry_ms } => prop_assert!((1..=ALLOWED_MS).contains(&retry_ms)),
                        }
                    }
                }
                prop_assert!(reviews.users.values().all(|answers| (1..=ANSWERS_OF_USER_MAX).contains(&answers.len())));
            }
        }
    }
}
