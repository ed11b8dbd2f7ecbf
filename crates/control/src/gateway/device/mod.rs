//! What a gateway knows of one device.
//!
//! A [`DeviceEntry`] is made of machines with invariants of their own, and keeps those between them:
//!
//! | machine | what it is about |
//! |---|---|
//! | [`ObservedDevice`] | the object in Kubernetes, a value: replaced whole by [`DeviceEntry::observe`] |
//! | [`SessionView`] | what the device's sessions in this process showed |
//! | [`Decommission`] | the order to take the device out of service, and its answer |
//! | [`Delivery`] | the desired set, from the controller over the disk to the device |
//! | [`DeviceSettings`] | values of its applications' settings, and its answers |
//! | [`WriteState`] | writes to the Kubernetes API about it; the queue of all devices is `Writer` |
//! | [`Allowance`] | what it may cost, whatever it sends |
//! | [`Trouble`] | what was seen of its identity that should not be |

mod application;
mod decommission;
mod delivery;
mod facts;
mod join_view;
mod observed;
mod session_view;
mod settings;

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use wasmbed_api::{ReasonCode, condition};
use wasmbed_protocol::{ApplicationUid, Epoch, Log, Reported, Trap};

use super::{
    admission::Known,
    allowance::Allowance,
    config::{RETRY_REFUSED_MS, RETRY_SPREAD_MAX_MS},
    connections::Greeting,
    counters::{Known as KnownCounters, plan_counters},
    events::About,
    input::{SessionId, StoredDevice},
    logs::Line,
    sets::Set,
    settings::Given,
    trouble::Trouble,
    writer::WriteState,
};
use crate::{Now, ObjectKey, gateway_api::DeviceView, kubernetes::Event};

pub(super) use application::Application;
pub(super) use decommission::Decommission;
pub(super) use delivery::{Delivery, Offer};
pub(super) use facts::facts_to_resource;
pub(super) use join_view::JoinView;
pub(super) use observed::{LastWritten, ObservedCondition, ObservedDevice, shared};
pub(super) use session_view::{ReportEffects, SessionView};
pub(super) use settings::DeviceSettings;

/// One device, known from Kubernetes, from the disk, from a controller or from its own connection.
///
/// # Contract
///
/// - [`DeviceEntry::observe`] with each version of the object, in any order.
/// - A session: [`DeviceEntry::begin`], [`DeviceEntry::establish`], then [`DeviceEntry::handle_report`] and
///   [`DeviceEntry::take_log`]; [`DeviceEntry::detach`] at its end, before the next one begins.
/// - [`DeviceEntry::open`] and [`DeviceEntry::close`] for each connection that counts as the device's.
/// - [`DeviceEntry::store`] whenever the disk is to hold what is known now.
///
/// Invariants, which [`DeviceEntry::check`] names: there is a session exactly while the view is connected.
#[derive(Debug)]
pub(super) struct DeviceEntry {
    key: Arc<ObjectKey>,
    /// The Device object, once seen.
    object: Option<ObservedDevice>,
    /// The key with which it was last let in, as it is on disk.
    admitted_key: Option<Arc<str>>,
    /// `metadata.uid` as it is on disk.
    stored_uid: Option<Arc<str>>,
    /// When it became known without an object.
    unseen_since_ms: u64,
    /// Which list of Devices it was last seen in or after.
    listing: u64,
    /// The session that is established or about to be.
    session: Option<SessionId>,
    /// A session whose Hello waits for the Device to be created.
    awaiting: Option<SessionId>,
    /// What its sessions in this process showed.
    live: Option<Box<SessionView>>,
    delivery: Delivery,
    /// Boxed: few devices are taken out of service.
    decommission: Option<Box<Decommission>>,
    /// Settings of its applications; boxed: not all have any.
    settings: Option<Box<DeviceSettings>>,
    /// Why it was last turned away, if that still is so.
    rejected: Option<ReasonCode>,
    /// How it is with its joining, if that is for people to know; boxed: few join at a time.
    join: Option<Box<JoinView>>,
    /// When it comes back at the latest, if it was given a retry time.
    returns_by: Option<Now>,
    /// Boxed: few have any.
    trouble: Option<Box<Trouble>>,
    writes: WriteState,
    allowance: Allowance,
}

/// What [`DeviceEntry::observe`] made of a version of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Observed {
    /// A newer one is known.
    Older,
    /// What the answer to our own write showed came again by the watch.
    Echo,
    /// It is what is known now; whether it names another key than the version before.
    Newest { another_key: bool },
}

/// What follows from [`DeviceEntry::begin`].
#[derive(Debug)]
pub(super) struct Begun {
    /// Numbers of the device that are not believed, for people.
    pub complaint: Option<String>,
    /// The disk does not know yet that it is let in.
    pub to_disk: bool,
}

impl DeviceEntry {
    /// A device of which nothing is known.
    pub(super) fn new(now: Now, key: Arc<ObjectKey>) -> Self {
        Self {
            key,
            object: None,
            admitted_key: None,
            stored_uid: None,
            unseen_since_ms: now.ms,
            listing: 0,
            session: None,
            awaiting: None,
            live: None,
            delivery: Delivery::default(),
            decommission: None,
            settings: None,
            rejected: None,
            join: None,
            returns_by: None,
            trouble: None,
            writes: WriteState::default(),
            allowance: Allowance::default(),
        }
    }

    /// A device as the disk knows it.
    pub(super) fn restored(
        now: Now,
        key: Arc<ObjectKey>,
        admitted_key: Option<String>,
        uid: Option<String>,
        set: Option<Set>,
        order: Option<Arc<[u8]>>,
    ) -> Self {
        Self {
            decommission: order.map(|order| Box::new(Decommission::restored(Some(order)))),
            admitted_key: admitted_key.map(Arc::from),
            stored_uid: uid.map(Arc::from),
            delivery: Delivery::restored(set),
            ..Self::new(now, key)
        }
    }

    // The object.

    /// A version of the object came, in or after this list of Devices. It is another object if its UID is another: then a new
    /// entry is made first.
    pub(super) fn observe(&mut self, listing: u64, mut object: ObservedDevice) -> Observed {
        self.listing = listing;
        let known = self.object.as_ref();
        if let Some(known) = known {
            debug_assert_eq!(known.uid(), object.uid(), "a Device of another UID is another device");
            if object.is_older_than(known) {
                return Observed::Older;
            }
            if object.is_version_of(known) {
                return Observed::Echo;
            }
        }
        object.share([known.map(ObservedDevice::uid), self.stored_uid.as_ref()], self.public_keys());
        let another_key = known.is_some_and(|known| known.public_key() != object.public_key());
        self.object = Some(object);
        Observed::Newest { another_key }
    }

    /// Whether a Device of this UID is another than the one known.
    pub(super) fn is_another(&self, uid: &str) -> bool {
        let known = [self.object.as_ref().map(ObservedDevice::uid), self.stored_uid.as_ref()];
        known.into_iter().flatten().any(|known| **known != *uid)
    }

    /// Its Device is in that list, unreadable.
    pub(super) fn keep(&mut self, listing: u64) {
        self.listing = listing;
    }

    /// Whether the list of this number, which is complete, shows that its Device is gone. One that only a controller or a
    /// connection named is given `unseen_ms` to appear.
    pub(super) fn is_gone(&self, now: Now, listing: u64, unseen_ms: u64) -> bool {
        let restored = self.object.is_none() && self.stored_uid.is_some();
        let overdue = now.ms.saturating_sub(self.unseen_since_ms) >= unseen_ms;
        self.listing < listing && (self.object.is_some() || restored || overdue)
    }

    /// Whether its Device has not appeared for so long, although nobody is about to create it.
    pub(super) fn is_unseen_for(&self, now: Now, unseen_ms: u64) -> bool {
        self.object.is_none()
            && self.writes.is_quiet()
            && now.ms.saturating_sub(self.unseen_since_ms) >= unseen_ms
    }

    /// The Device was created: it is waited for from now on.
    pub(super) fn handle_created(&mut self, now: Now) {
        self.unseen_since_ms = now.ms;
    }

    /// A device that was told to stay away by an earlier life of this gateway comes back as late as one that was told so now.
    pub(super) fn adopt_retry(&mut self, now: Now) {
        let object = present!(&self.object, "the object was just noted");
        let told = object.status().told_to_stay_away().is_some();
        if told && self.live.is_none() && self.returns_by.is_none() && !object.is_revoked() {
            self.stays_away(now, u64::from(RETRY_REFUSED_MS));
        }
    }

    /// What an earlier life of this gateway wrote of trouble is taken over, so that it is cleared in its time, and another key
    /// makes the question of the old one void.
    pub(super) fn adopt_trouble(&mut self, now: Now, another_key: bool, gateway: &str) {
        let object = present!(self.object.as_ref(), "the object was just noted");
        let shown = object.status();
        let own = !shown.is_by_another(gateway);
        let holds = |name| shown.condition(name).is_some_and(ObservedCondition::holds) && own;
        let (clone, mismatch) = (holds(condition::CLONE_SUSPECTED), holds(condition::KEY_MISMATCH));
        if (clone || mismatch) && self.trouble.is_none() && !another_key {
            self.trouble = Some(Box::new(Trouble::adopted(now.ms, clone, mismatch)));
        }
        if let Some(trouble) = self.trouble.as_deref_mut().filter(|_| another_key) {
            trouble.forget_mismatch();
        }
    }

    // Admission.

    /// How it is known, for admission; `synced` if a whole list of Devices has been seen.
    pub(super) fn known(&self, synced: bool) -> Known<'_> {
        match &self.object {
            Some(object) => Known::Object {
                approved: object.is_approved(),
                revoked: object.is_revoked(),
                decommissioned: object.is_decommissioned(),
                public_key: object.public_key().map(AsRef::as_ref),
            },
            None if synced => Known::Missing,
            None if self.stored_uid.is_some() => Known::Stored { admitted_key: self.admitted_key.as_deref() },
            None => Known::Unsynced,
        }
    }

    /// Whether no session of this Device was ever seen.
    pub(super) fn is_unused(&self) -> bool {
        let unused =
            |object: &ObservedDevice| !object.status().names_gateway() && object.status().epoch() == 0;
        self.object.as_ref().is_some_and(unused) && self.live.is_none() && self.admitted_key.is_none()
    }

    /// It was turned away, for a reason that its Device shows.
    pub(super) fn turned_away(&mut self, reason: ReasonCode) {
        self.rejected = Some(reason);
    }

    /// Its device joins, and this is to be said of that.
    pub(super) fn joins(&mut self, view: JoinView) {
        self.join = Some(Box::new(view));
    }

    /// Its Device is about to be created.
    pub(super) fn enrolls(&mut self, waits: bool) {
        self.rejected = (!waits).then_some(ReasonCode::PendingApproval);
    }

    /// It was told to come back after so long; it adds up to a spread of its own.
    pub(super) fn stays_away(&mut self, now: Now, retry_after_ms: u64) {
        let away_ms = retry_after_ms + RETRY_SPREAD_MAX_MS;
        self.returns_by = Some(Now { ms: now.ms + away_ms, unix_ms: now.unix_ms + away_ms });
    }

    /// Whether a client with this key is the device, as far as its Device says.
    pub(super) fn has_key(&self, key: &str) -> bool {
        let pinned = self.object.as_ref().and_then(ObservedDevice::public_key);
        pinned.is_none_or(|pinned| **pinned == *key)
    }

    /// It is not let in any more while the Kubernetes API is away; whether the disk says otherwise.
    pub(super) fn keep_out(&mut self) -> bool {
        self.admitted_key.take().is_some()
    }

    // Sessions.

    /// A connection that counts as its own is open.
    pub(super) fn open(&mut self, id: SessionId) {
        self.allowance.open(id);
    }

    /// Such a connection is gone.
    pub(super) fn close(&mut self, id: SessionId) {
        self.allowance.close(id);
    }

    /// A Hello waits for the Device to be created; gives the one that waited before.
    pub(super) fn await_device(&mut self, id: SessionId) -> Option<SessionId> {
        self.awaiting.replace(id).filter(|earlier| *earlier != id)
    }

    /// A session begins: its epoch is to be claimed in Device.status.
    pub(super) fn begin(&mut self, now: Now, id: SessionId, greeting: &Greeting, key: &Arc<str>) -> Begun {
        debug_assert!(self.session.is_none(), "{} begins a session while it has one", self.key);
        let written = self.object.as_ref().map(ObservedDevice::status);
        let written = written.map_or((0, 0), |status| (status.epoch(), status.revision()));
        let earlier = self.live.as_deref();
        let known = KnownCounters::counted_from(self.delivery.base())
            .seen(written.0, written.1)
            .seen(earlier.map_or(0, |live| live.epoch().0), self.delivery.seen());
        let counted = plan_counters(known, greeting.last_epoch(), greeting.revision());
        let start = earlier.and_then(SessionView::start);
        self.delivery.begin(&counted, written.1);
        let live = SessionView::new(now, greeting, &counted, start, self.delivery.limit());
        self.live = Some(Box::new(live));
        self.session = Some(id);
        self.awaiting = None;
        self.rejected = None;
        self.join = None;
        self.returns_by = None;
        let admitted = self.admitted_key.as_ref() == Some(key);
        let same_object =
            self.object.as_ref().is_none_or(|object| Some(object.uid()) == self.stored_uid.as_ref());
        let to_disk = !admitted || !same_object;
        if to_disk {
            self.admitted_key = Some(Arc::clone(key));
        }
        Begun { complaint: counted.complaint().map(str::to_owned), to_disk }
    }

    /// Its session is given Welcome; gives its epoch.
    pub(super) fn establish(&mut self) -> Option<Epoch> {
        Some(self.live.as_deref_mut()?.establish())
    }

    /// A connection ended or is about to; gives the epoch if it was the device's session. A stale one does not end its successor.
    pub(super) fn detach(&mut self, id: SessionId, reason: ReasonCode) -> Option<Epoch> {
        self.awaiting.take_if(|awaiting| *awaiting == id);
        self.session.take_if(|session| *session == id)?;
        let live = present!(self.live.as_deref_mut(), "a session has its epoch" => None);
        Some(live.end(reason))
    }

    /// Its session was replaced in Device.status by one of which this process knows nothing.
    pub(super) fn forget_session(&mut self) {
        debug_assert!(self.session.is_none(), "the session of {} was not ended", self.key);
        self.live = None;
    }

    /// Takes its sessions, for the end of everything.
    pub(super) fn take_sessions(&mut self) -> impl Iterator<Item = SessionId> + use<> {
        [self.session.take(), self.awaiting.take()].into_iter().flatten()
    }

    /// A frame came by this connection.
    pub(super) fn heard(&mut self, now: Now, id: SessionId) {
        if let Some(live) = self.live.as_deref_mut().filter(|_| self.session == Some(id)) {
            live.heard(now);
        }
    }

    /// Its established session reported.
    pub(super) fn handle_report(&mut self, now: Now, reported: &Reported<'_>) -> ReportEffects {
        let live = self.live.as_deref_mut();
        let live = present!(live, "an established session has its epoch" => ReportEffects::default());
        let revision = self.delivery.count(reported.revision, live.revision_limit());
        let highest = self.delivery.base().saturating_add(self.delivery.seen());
        let uid = self.object.as_ref().map(|object| &**object.uid());
        let name = |uid: &ApplicationUid| self.delivery.name(uid);
        live.handle_report(now, &self.key, uid, reported, (revision, highest), name)
    }

    /// An application of an established session trapped: the Event that says where, once the Device is known.
    pub(super) fn handle_trap(&mut self, now: Now, trap: &Trap<'_>) -> Option<(About, Event)> {
        let name = self.application_name(trap.uid);
        let live = present!(self.live.as_deref_mut(), "an established session has its epoch" => None);
        let uid = self.object.as_ref().map(|object| &**object.uid())?;
        live.note_trap(trap);
        let about = About::Application(name.as_ref().map(|_| trap.uid));
        Some((about, Application::trap_event(now, &self.key, uid, name.as_deref(), trap)))
    }

    /// Whether a line of one of its applications is within the device's share; [`DeviceEntry::take_log`] follows if it is.
    pub(super) fn allow_log(&mut self, now: Now, log: &Log<'_>) -> bool {
        let allowed = self.allowance.allow_log(now, log.text.len());
        if let Some(live) = self.live.as_deref_mut().filter(|_| !allowed) {
            live.skip_log(log);
        }
        allowed
    }

    /// Takes such a line, with its text as it is kept.
    pub(super) fn take_log<'a>(&mut self, log: &Log<'_>, text: &'a str) -> Option<Line<'a>> {
        let live = present!(self.live.as_deref_mut(), "an established session has its epoch" => None);
        Some(live.take_log(log, text))
    }

    /// What an application is called by its set, or by a set before.
    pub(super) fn application_name(&self, uid: ApplicationUid) -> Option<Arc<str>> {
        let reported = || self.live.as_deref()?.application(uid)?.name().cloned();
        self.delivery.name(&uid).or_else(reported)
    }

    // The disk.

    /// What the disk is to hold of it; from now on it counts as held.
    pub(super) fn store(&mut self) -> StoredDevice {
        if let Some(object) = &self.object {
            self.stored_uid = Some(Arc::clone(object.uid()));
        }
        // Operations happen in their order: an older set must not follow a newer one.
        let set = self.delivery.newest().map(|set| set.to_api(&self.key));
        self.as_stored(set)
    }

    /// What the disk is to hold of it together with this set.
    pub(super) fn as_stored(&self, set: Option<crate::gateway_api::DeviceSet>) -> StoredDevice {
        let uid = self.object.as_ref().map(ObservedDevice::uid).or(self.stored_uid.as_ref());
        StoredDevice {
            device: (*self.key).clone(),
            uid: uid.map(ToString::to_string),
            admitted_key: self.admitted_key.as_deref().map(str::to_owned),
            set,
            order: self.decommission().and_then(Decommission::order).map(|order| STANDARD.encode(order)),
            settings: self.settings().and_then(DeviceSettings::given).map(|given| given.to_api(&self.key)),
        }
    }

    /// Whether the disk holds its set under another UID than the object's.
    pub(super) fn is_stored_as_another(&self) -> bool {
        let uid = self.object.as_ref().map(ObservedDevice::uid);
        self.stored_uid.as_ref() != uid && self.delivery.held().is_some()
    }

    /// Whether the disk may hold something of it.
    pub(super) fn is_on_disk(&self) -> bool {
        self.stored_uid.is_some()
            || self.delivery.held().is_some()
            || self.admitted_key.is_some()
            || self.decommission().is_some_and(|it| it.order().is_some())
            || self.settings().is_some_and(|it| it.given().is_some())
    }

    // What is known.

    pub(super) fn key(&self) -> &Arc<ObjectKey> {
        &self.key
    }

    /// `metadata.uid` of the Device, once seen.
    pub(super) fn uid(&self) -> Option<&Arc<str>> {
        self.object.as_ref().map(ObservedDevice::uid).or(self.stored_uid.as_ref())
    }

    /// The Device object, once seen.
    pub(super) fn object(&self) -> Option<&ObservedDevice> {
        self.object.as_ref()
    }

    /// The session that is established or about to be.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// The session whose Hello waits for the Device to be created.
    pub(super) fn awaiting(&self) -> Option<SessionId> {
        self.awaiting
    }

    /// What its sessions in this process showed.
    pub(super) fn live(&self) -> Option<&SessionView> {
        self.live.as_deref()
    }

    /// Keys by which it is known.
    pub(super) fn public_keys(&self) -> [Option<&Arc<str>>; 2] {
        let pinned = self.object.as_ref().and_then(ObservedDevice::public_key);
        [pinned, self.admitted_key.as_ref()]
    }

    /// Why it was last turned away, if that still is so.
    pub(super) fn rejected(&self) -> Option<ReasonCode> {
        self.rejected
    }

    /// What is to be said of its joining, while that is so.
    pub(super) fn join(&self) -> Option<&JoinView> {
        let join = self.join.as_deref()?;
        let object = self.object.as_ref()?;
        let answered = match join.reason() {
            ReasonCode::PendingApproval => object.is_approved(),
            ReasonCode::Approved => !object.is_approved(),
            ReasonCode::KeyNotConfirmed => {
                object.confirmed_key().is_some_and(|key| join.message().contains(&key.to_string()))
            }
            _ => false,
        };
        (!answered).then_some(join)
    }

    /// When it comes back at the latest, if it was given a retry time.
    pub(super) fn returns_by(&self) -> Option<Now> {
        self.returns_by
    }

    pub(super) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_deref()
    }

    /// The trouble with its identity, to note more of it.
    pub(super) fn note_trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }

    /// Forgets what was quiet for long enough; whether there was anything.
    pub(super) fn expire_trouble(&mut self, now: Now) -> bool {
        let Some(trouble) = self.trouble.as_deref_mut() else { return false };
        if trouble.expire(now.ms) {
            self.trouble = None;
        }
        true
    }

    pub(super) fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    pub(super) fn delivery_mut(&mut self) -> &mut Delivery {
        &mut self.delivery
    }

    /// How it is with its being taken out of service, if there is something to say.
    pub(super) fn decommission(&self) -> Option<&Decommission> {
        self.decommission.as_deref()
    }

    pub(super) fn decommission_mut(&mut self) -> &mut Decommission {
        self.decommission.get_or_insert_default()
    }

    /// Settings of its applications, as the disk has them.
    pub(super) fn restore_settings(&mut self, given: Option<Given>) {
        self.settings = given.map(|given| Box::new(DeviceSettings::restored(given)));
    }

    /// Settings of its applications, if there is something to say.
    pub(super) fn settings(&self) -> Option<&DeviceSettings> {
        self.settings.as_deref()
    }

    pub(super) fn settings_mut(&mut self) -> &mut DeviceSettings {
        self.settings.get_or_insert_default()
    }

    /// The order to take it out of service is this one now, or there is none; false if that is so already.
    pub(super) fn take_order(&mut self, order: Option<Arc<[u8]>>) -> bool {
        let taken = self.decommission_mut().take(order);
        self.decommission.take_if(|it| it.is_empty());
        taken
    }

    /// Its Device says that it was taken out of service: nothing more is to be passed on. Whether the disk says otherwise.
    pub(super) fn end_decommission(&mut self) -> bool {
        self.decommission.take().is_some_and(|it| it.order().is_some())
    }

    /// Whether there is an order that its session can be sent.
    pub(super) fn takes_order(&self) -> bool {
        let order = self.decommission().is_some_and(|it| it.order().is_some());
        order && self.live().is_some_and(SessionView::takes_orders)
    }

    pub(super) fn writes(&self) -> &WriteState {
        &self.writes
    }

    pub(super) fn writes_mut(&mut self) -> &mut WriteState {
        &mut self.writes
    }

    pub(super) fn allowance(&self) -> &Allowance {
        &self.allowance
    }

    pub(super) fn allowance_mut(&mut self) -> &mut Allowance {
        &mut self.allowance
    }

    /// The whole view, as controllers read it.
    pub(super) fn view(&self) -> DeviceView {
        let mut view = DeviceView {
            device: (*self.key).clone(),
            connected: false,
            epoch: 0,
            revision_seen: self.delivery.seen(),
            revision_held: self.delivery.held().map(Set::revision),
            revision_reported: None,
            facts: None,
            applications: None,
            decommission: None,
            settings: self.settings().map(DeviceSettings::view),
        };
        if let Some(live) = &self.live {
            live.show(&mut view);
        }
        let unsupported = self.live().is_some_and(|live| live.is_established() && !live.takes_orders());
        view.decommission = self.decommission().and_then(|it| it.view(unsupported));
        view
    }

    /// The first broken invariant, if any.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.live().is_some_and(SessionView::is_connected) != self.session.is_some() {
            return Err("a device counts as connected without a session, or has one without counting");
        }
        self.delivery.check()
    }
}
