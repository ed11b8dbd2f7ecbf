//! The agent's news as lines of the device's own log.

use wasmbed_agent::{Agent, Event, SessionState};
use wasmbed_protocol::{CorrelationId, ReportReason};

use crate::{
    host::Slot,
    platform::{Level, LogSink, Record},
};

/// A line without fields.
pub(crate) fn plain<L: LogSink>(log: &mut L, level: Level, message: core::fmt::Arguments<'_>) {
    log.record(&Record {
        level,
        message,
        application: None,
        correlation_id: None,
        epoch: None,
        revision: None,
        reason: None,
    });
}

/// A line about one application.
pub(crate) fn about<L: LogSink>(log: &mut L, level: Level, slot: &Slot, message: core::fmt::Arguments<'_>) {
    log.record(&Record {
        level,
        message,
        application: Some(&slot.name),
        correlation_id: Some(slot.correlation_id),
        epoch: None,
        revision: None,
        reason: None,
    });
}

/// Writes down what the agent has to tell.
pub(crate) fn write_events<L: LogSink>(log: &mut L, agent: &mut Agent) {
    while let Some(event) = agent.poll_event() {
        let epoch = match agent.session() {
            SessionState::Established(epoch) => Some(epoch),
            SessionState::Down | SessionState::Connecting | SessionState::Joining | SessionState::Closing => {
                None
            }
        };
        write_event(log, &event, epoch, agent);
    }
}

const STATE_LOST: &str =
    "state record not readable: what was assigned and the count of starts are lost, modules are kept";
const START_UNCOUNTED: &str = "this start is not counted: its number could not be stored";

fn write_event<L: LogSink>(
    log: &mut L,
    event: &Event,
    epoch: Option<wasmbed_protocol::Epoch>,
    agent: &Agent,
) {
    let mut write = |level, message: core::fmt::Arguments<'_>, subject: Subject<'_>| {
        log.record(&Record {
            level,
            message,
            application: subject.application,
            correlation_id: subject.correlation_id,
            epoch,
            revision: subject.revision,
            reason: subject.reason,
        });
    };
    let none = Subject::default();
    match event {
        Event::Welcomed { desired_known: true, .. } => {
            write(Level::Info, format_args!("session established"), none)
        }
        Event::Welcomed { desired_known: false, .. } => {
            let message =
                format_args!("session established; the gateway knows no set, applications keep running");
            write(Level::Info, message, none);
        }
        Event::Closed { reason, detail, retry_after_ms } => {
            let message =
                format_args!("gateway ended the session, try again in {retry_after_ms} ms: {detail}");
            write(Level::Warn, message, Subject { reason: Some(reason.name()), ..none });
        }
        Event::Silent => write(Level::Warn, format_args!("gateway is silent"), none),
        Event::BadFrame { detail } => write(Level::Warn, format_args!("frame not usable: {detail}"), none),
        Event::Complaint { detail } => write(Level::Warn, format_args!("gateway complains: {detail}"), none),
        Event::Pause { pause_ms } => {
            write(Level::Info, format_args!("not connected, next try in {pause_ms} ms"), none)
        }
        Event::Desired { revision, applications } => {
            let subject = Subject { revision: Some(*revision), ..none };
            write(Level::Info, format_args!("desired set of {applications} applications"), subject);
        }
        Event::Forgotten { applications } => {
            let message = format_args!("{applications} applications stopped and the desired set forgotten");
            write(Level::Warn, message, none);
        }
        Event::StaleDesired { revision } => {
            let held = agent.revision();
            let message =
                format_args!("desired set refused: its revision is lower than {held}, which is held");
            write(Level::Warn, message, Subject { revision: Some(*revision), ..none });
        }
        Event::Assigned { uid, correlation_id, digest } => {
            let message = format_args!("assignment of {uid} received, module {digest}");
            write(Level::Info, message, Subject { correlation_id: Some(*correlation_id), ..none });
        }
        Event::ModuleStored { digest } => {
            write(Level::Info, format_args!("module {digest} verified and stored"), none);
        }
        Event::Trouble { uid, correlation_id, reason, message } => {
            let level = if *reason == ReportReason::Exited { Level::Info } else { Level::Warn };
            let subject = Subject {
                correlation_id: Some(*correlation_id),
                reason: Some(reason.name()),
                ..Subject::default()
            };
            write(level, format_args!("application {uid}: {message}"), subject);
        }
        Event::StateFailed { message } => {
            write(Level::Error, format_args!("state record not written: {message}"), none);
        }
        Event::StateLost => write(Level::Error, format_args!("{STATE_LOST}"), none),
        Event::IdentityUnread
        | Event::IdentityLost
        | Event::IdentityReplaced
        | Event::IdentityUnwritten { .. }
        | Event::IdentityFailed { .. }
        | Event::KeyUsed { .. }
        | Event::Unpaired
        | Event::Asked { .. }
        | Event::Waiting { .. }
        | Event::JoinRefused { .. }
        | Event::Issued { .. }
        | Event::Proven => write_identity_event(event, &mut |level, message| write(level, message, none)),
        Event::OrderRefused { .. }
        | Event::Decommissioning { .. }
        | Event::NotErased
        | Event::Decommissioned
        | Event::ProofAcknowledged
        | Event::AtRest { .. } => {
            write_decommission_event(event, &mut |level, message| write(level, message, none));
        }
        Event::StartUncounted => write(Level::Warn, format_args!("{START_UNCOUNTED}"), none),
    }
}

/// The part about keys and certificates.
fn write_identity_event(event: &Event, write: &mut dyn FnMut(Level, core::fmt::Arguments<'_>)) {
    match event {
        Event::IdentityUnread => {
            write(Level::Error, format_args!("identity record not read, and nothing is done without it"));
        }
        Event::IdentityLost => {
            let message =
                "identity record not readable: the key that this device made and its certificates are lost";
            write(Level::Error, format_args!("{message}"));
        }
        Event::IdentityReplaced => {
            write(Level::Warn, format_args!("this device was provisioned anew: its former key is dropped"));
        }
        Event::IdentityUnwritten { message } => {
            write(Level::Error, format_args!("identity record not written: {message}"));
        }
        Event::IdentityFailed { error } => {
            write(Level::Error, format_args!("identity not usable: {error}"));
        }
        Event::KeyUsed { key } => write(Level::Info, format_args!("this device's key is sha256:{key}")),
        Event::Unpaired => {
            let message = "the certificate is over and the pairing token was used: pair this device again";
            write(Level::Error, format_args!("{message}"));
        }
        Event::Asked { renews: false } => write(Level::Info, format_args!("joining: certificate asked for")),
        Event::Asked { renews: true } => {
            write(Level::Info, format_args!("renewing: certificate asked for"));
        }
        Event::Waiting { namespace, name, detail } => {
            write(Level::Info, format_args!("certificate of Device {namespace}/{name} waited for: {detail}"));
        }
        Event::JoinRefused { detail, retry_after_ms } => {
            let message = format_args!("certificate refused, ask again in {retry_after_ms} ms: {detail}");
            write(Level::Warn, message);
        }
        Event::Issued { not_after_s } => {
            let message = format_args!(
                "certificate received, valid until {not_after_s} s after 1970; the next connection uses it"
            );
            write(Level::Info, message);
        }
        Event::Proven => write(Level::Info, format_args!("certificate in use from now on")),
        other => debug_assert!(false, "not about the identity: {other:?}"),
    }
}

/// The part about the end.
fn write_decommission_event(event: &Event, write: &mut dyn FnMut(Level, core::fmt::Arguments<'_>)) {
    match event {
        Event::OrderRefused { detail } => {
            write(Level::Warn, format_args!("order to decommission this device not followed: {detail}"));
        }
        Event::Decommissioning { device_uid } => {
            let message = format_args!(
                "decommissioned as Device {device_uid} by a controller: everything is stopped and being erased"
            );
            write(Level::Warn, message);
        }
        Event::NotErased => {
            write(Level::Error, format_args!("storage did not erase all that it should; the proof says so"));
        }
        Event::Decommissioned => {
            let message =
                "everything is erased, and the proof is stored; it is sent until it is acknowledged";
            write(Level::Warn, format_args!("{message}"));
        }
        Event::ProofAcknowledged => {
            write(Level::Warn, format_args!("the proof arrived: this device's key is being erased"));
        }
        Event::AtRest { problem: None } => {
            let message = "this device was decommissioned: its key is erased, and it does nothing any more";
            write(Level::Warn, format_args!("{message}"));
        }
        Event::AtRest { problem: Some(problem) } => {
            let message = format_args!(
                "this device was decommissioned and does nothing any more, but its key could not be erased: {problem}"
            );
            write(Level::Error, message);
        }
        other => debug_assert!(false, "not about decommissioning: {other:?}"),
    }
}

#[derive(Clone, Copy, Default)]
struct Subject<'a> {
    application: Option<&'a str>,
    correlation_id: Option<CorrelationId>,
    revision: Option<wasmbed_protocol::Revision>,
    reason: Option<&'a str>,
}
