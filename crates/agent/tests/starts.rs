//! Each start of a device has a number that is stored before it is told, and eight random bytes.
#![cfg(test)]

mod support;

use support::{config, transmit};
use wasmbed_agent::{
    Agent, Effect, Event, Restored,
    storage::{Done, Operation, Outcome, StorageError},
};
use wasmbed_protocol::{BootCounter, BootId, DeviceMessage, decode_device};

fn start(state: Option<Vec<u8>>, state_unread: bool, boot_id: u8) -> Agent {
    Agent::new(config(1, boot_id), Restored { state, state_unread, ..Restored::default() }, 0)
}

/// The state record that the agent wants written now.
fn wants_state(agent: &mut Agent) -> Option<Vec<u8>> {
    std::iter::from_fn(|| agent.poll_effect()).find_map(|effect| match effect {
        Effect::Storage(Operation::CommitState(bytes)) => Some(bytes),
        _ => None,
    })
}

fn hello(agent: &mut Agent) -> Option<(Option<BootCounter>, Option<BootId>)> {
    match decode_device(&transmit(agent)?) {
        Ok(DeviceMessage::Hello(hello)) => Some((hello.boot_counter, hello.boot_id)),
        other => panic!("not Hello: {other:?}"),
    }
}

const WRITTEN: Outcome = Ok(Done::Written);

#[test]
fn a_start_tells_its_number_once_storage_has_it() {
    let mut state = None;
    for number in 1..4 {
        let mut agent = start(state.take(), false, number);
        let record = wants_state(&mut agent);
        agent.handle_connected(1);
        assert_eq!(hello(&mut agent), None, "the number is not stored yet");
        agent.handle_storage(2, WRITTEN);
        let told = (Some(BootCounter(number.into())), Some(BootId([number; 8])));
        assert_eq!(hello(&mut agent), Some(told));
        state = record;
    }
    // A cut before the write: the number was not told, so that the next start may have it.
    let mut cut = start(state.clone(), false, 4);
    cut.handle_connected(1);
    assert_eq!(hello(&mut cut), None);
    let mut next = start(state, false, 5);
    let _ = wants_state(&mut next);
    next.handle_storage(1, WRITTEN);
    next.handle_connected(2);
    assert_eq!(hello(&mut next), Some((Some(BootCounter(4)), Some(BootId([5; 8])))));
}

#[test]
fn a_start_whose_number_cannot_be_stored_goes_without() {
    let mut agent = start(None, false, 1);
    assert!(wants_state(&mut agent).is_some());
    agent.handle_connected(1);
    agent.handle_storage(2, Err(StorageError::Full));
    assert_eq!(hello(&mut agent), Some((None, Some(BootId([1; 8])))));
    let events: Vec<_> = std::iter::from_fn(|| agent.poll_event()).collect();
    assert!(events.contains(&Event::StartUncounted), "{events:?}");
    // There is room again: the next session has the number.
    agent.handle_timeout(600_000);
    assert!(wants_state(&mut agent).is_some());
    agent.handle_storage(600_001, WRITTEN);
    agent.handle_disconnected(600_002, 0);
    agent.handle_timeout(1_200_000);
    agent.handle_connected(1_200_001);
    assert_eq!(hello(&mut agent), Some((Some(BootCounter(1)), Some(BootId([1; 8])))));
}

#[test]
fn a_lost_record_is_told_and_counting_begins_anew() {
    let mut agent = start(Some(vec![0xff; 40]), false, 9);
    assert_eq!(agent.poll_event(), Some(Event::StateLost));
    let _ = wants_state(&mut agent);
    agent.handle_storage(1, WRITTEN);
    agent.handle_connected(1);
    assert_eq!(hello(&mut agent), Some((Some(BootCounter(1)), Some(BootId([9; 8])))));
}

#[test]
fn a_record_that_could_not_be_read_is_not_written_over_at_once() {
    let mut agent = start(None, true, 3);
    assert_eq!(wants_state(&mut agent), None);
    agent.handle_connected(1);
    assert_eq!(hello(&mut agent), Some((None, Some(BootId([3; 8])))));
}
