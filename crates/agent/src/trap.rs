//! Where applications trapped: what waits to be told.

use alloc::{collections::VecDeque, string::String, vec::Vec};

use wasmbed_protocol::{
    ApplicationUid, List, SpecHash, StackFrame, Trap, TrapKind,
    limits::{FUNCTION_NAME_BYTES_MAX, STACK_FRAMES_MAX},
};

use crate::text::clip;

/// Traps that wait for a session, at most one of each application: some 500 bytes each. They are told once, and not kept
/// over a reset.
pub const TRAPS_WAITING_MAX: usize = 4;

/// A function that was under way when an application trapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrappedFrame {
    /// Its index in the module.
    pub function: u32,
    /// Of the operator that trapped, or of the call, in the module; none if it was not found.
    pub offset: Option<u32>,
    /// Its name, or nothing; cut to the bound of a message.
    pub name: String,
}

/// Where a run trapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trapped {
    /// What it did.
    pub kind: TrapKind,
    /// The function that trapped, then its callers; cut to the bound of a message.
    pub frames: Vec<TrappedFrame>,
    /// Callers beyond those.
    pub frames_left_out: u32,
}

impl Trapped {
    /// The functions as a message has them, for as long as `with` runs.
    pub fn with_frames<R>(&self, with: impl FnOnce(List<'_, StackFrame<'_>>) -> R) -> R {
        let frames = self.frames.iter().take(STACK_FRAMES_MAX).map(|frame| StackFrame {
            function: frame.function,
            offset: frame.offset,
            name: clip(&frame.name, FUNCTION_NAME_BYTES_MAX),
        });
        let frames: Vec<_> = frames.collect();
        with(List::new(&frames))
    }
}

#[derive(Clone, Debug)]
struct Waiting {
    uid: ApplicationUid,
    spec_hash: SpecHash,
    restarts: u32,
    trapped: Trapped,
}

/// Traps in the order in which they happened.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrapQueue(VecDeque<Waiting>);

impl TrapQueue {
    /// An application trapped. What waits of it gives way, else the oldest if there are too many.
    pub(crate) fn push(&mut self, uid: ApplicationUid, spec_hash: SpecHash, restarts: u32, trapped: Trapped) {
        self.forget(uid);
        if self.0.len() >= TRAPS_WAITING_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Waiting { uid, spec_hash, restarts, trapped });
    }

    /// The application is none of the device's any more.
    pub(crate) fn forget(&mut self, uid: ApplicationUid) {
        self.0.retain(|waiting| waiting.uid != uid);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no more than may wait, one of each application.
    pub(crate) fn is_consistent(&self) -> bool {
        let alone = |(at, waiting): (usize, &Waiting)| {
            self.0.iter().skip(at + 1).all(|other| other.uid != waiting.uid)
        };
        self.0.len() <= TRAPS_WAITING_MAX && self.0.iter().enumerate().all(alone)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the oldest, which counts as told.
    pub(crate) fn take<R>(&mut self, tell: impl FnOnce(Trap<'_>) -> R) -> Option<R> {
        let Waiting { uid, spec_hash, restarts, trapped } = self.0.pop_front()?;
        let (kind, frames_left_out) = (trapped.kind, trapped.frames_left_out);
        Some(
            trapped
                .with_frames(|frames| tell(Trap { uid, spec_hash, restarts, kind, frames, frames_left_out })),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_application_waits_and_no_more_than_there_is_room_for() {
        let mut queue = TrapQueue::default();
        let trapped = |function| Trapped {
            kind: TrapKind::Unreachable,
            frames: (0..20)
                .map(|_| TrappedFrame { function, offset: None, name: "\u{e9}".repeat(40) })
                .collect(),
            frames_left_out: 0,
        };
        for number in 0..10_u8 {
            queue.push(ApplicationUid([number; 16]), SpecHash([0; 32]), 0, trapped(0));
            queue.push(ApplicationUid([number; 16]), SpecHash([0; 32]), 1, trapped(1));
        }
        assert!(queue.is_consistent() && queue.len() == TRAPS_WAITING_MAX);
        queue.forget(ApplicationUid([8; 16]));
        let told = |queue: &mut TrapQueue| {
            queue.take(|trap| {
                assert_eq!((trap.frames.len(), trap.restarts), (STACK_FRAMES_MAX, 1));
                assert!(trap.frames.iter().all(|frame| frame.function == 1 && frame.name.len() == 32));
                trap.uid.0[0]
            })
        };
        assert_eq!([told(&mut queue), told(&mut queue), told(&mut queue)], [Some(6), Some(7), Some(9)]);
        assert_eq!(told(&mut queue), None);
    }
}
