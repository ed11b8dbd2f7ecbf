//! An identity record from storage, whatever it holds, and the device that starts with it.

use wasmbed_agent::{
    Agent, ChainFacts, Config, DeviceFacts, Effect, IdentityError, Presented, Provisioned, Restored,
    storage::{Done, Operation},
};
use wasmbed_protocol::{BootId, KeyHash, ResetReason};

/// What became of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Its key was taken into use.
    pub key: bool,
    /// Its chain was presented.
    pub chain: bool,
}

/// The first byte says what the device was provisioned with, the others are the record.
pub fn accept(bytes: &[u8]) -> Taken {
    let Some((kind, record)) = bytes.split_first() else { return Taken::default() };
    let facts = ChainFacts { not_before_s: 1, not_after_s: 2 };
    let provisioned = match kind % 3 {
        0 => Provisioned::Operational { key: KeyHash([1; 32]), facts },
        1 => Provisioned::Factory { key: KeyHash([1; 32]) },
        _ => Provisioned::Pairing { id: String::from("0a1b2c3d") },
    };
    let mut agent = Agent::new(config(provisioned), Restored::default(), 0);
    let mut taken = Taken::default();
    for round in 0..12 {
        let mut stored = None;
        while let Some(effect) = agent.poll_effect() {
            match effect {
                Effect::Storage(Operation::ReadIdentity) => {
                    stored = Some(Done::Record(Some(record.to_vec())))
                }
                Effect::Storage(Operation::EraseRemoved) => stored = Some(Done::Erased { left: false }),
                Effect::Storage(_) => stored = Some(Done::Written),
                Effect::MakeKey => agent.handle_key(round, Ok(vec![7; 138])),
                Effect::UseKey => {
                    let key = agent.operational_key().to_vec();
                    taken.key |= key != [7; 138];
                    let is_key = key.first() != Some(&0);
                    let unusable = || IdentityError::Key(String::from("it begins with a zero"));
                    let used = is_key.then(|| KeyHash::of(&key)).ok_or_else(unusable);
                    agent.handle_key_used(round, used);
                }
                Effect::Connect => {
                    if let Presented::Chain(chain) = agent.presented() {
                        assert!(!chain.is_empty(), "an empty chain is presented");
                        taken.chain = true;
                    }
                }
                Effect::Close
                | Effect::Request
                | Effect::Prove(_)
                | Effect::CheckChain
                | Effect::CheckOrder
                | Effect::SignProof(_)
                | Effect::ForgetKeys
                | Effect::Start(_)
                | Effect::Stop { .. }
                | Effect::SettingsChanged { .. }
                | Effect::Wake { .. } => {}
            }
        }
        if let Some(done) = stored {
            agent.handle_storage(round, Ok(done));
        }
        agent.handle_timeout(round);
        assert!(agent.check().is_ok(), "the agent's invariants hold whatever it finds");
    }
    taken
}

fn config(provisioned: Provisioned) -> Config {
    Config {
        facts: DeviceFacts {
            board: "test".into(),
            firmware: "0".into(),
            engine: "none".into(),
            memory_bytes: 1,
            flash_bytes: 1,
            load_permille: 1_600,
            module_bytes_max: 100_000,
            applications_max: 1,
            features: 0,
            imports: Vec::new(),
            capabilities: Vec::new(),
            peripherals: Vec::new(),
        },
        reset_reason: ResetReason::PowerOn,
        reset_detail: String::new(),
        boot_id: BootId([1; 8]),
        provisioned,
        unix_s: None,
    }
}
