//! What controllers have sent to gateways and what has not arrived yet. It outlives its sender, as packets do.

use wasmbed_control::{
    Now,
    fleet::{BrokersOutcome, CallId, OrdersOutcome, PutOutcome, SettingsOutcome, UploadOutcome},
    gateway::Refused,
    gateway_api::{PutBrokers, PutDecommissions, PutSets, PutSettings},
};
use wasmbed_protocol::ModuleDigest;

use crate::{
    api::Api, gateway::GatewayProcess, invariants::Witness, random::Random, sender::Sender, weather::Weather,
};

pub(crate) enum Request {
    Put(PutSets),
    Orders(PutDecommissions),
    Settings(PutSettings),
    Brokers(PutBrokers),
    Upload { digest: ModuleDigest, bytes: Vec<u8> },
}

pub(crate) enum Answer {
    Put(PutOutcome),
    Orders(OrdersOutcome),
    Settings(SettingsOutcome),
    Brokers(BrokersOutcome),
    Upload(UploadOutcome),
}

struct Sent {
    at_ms: u64,
    sender: Sender,
    gateway: String,
    id: CallId,
    request: Request,
}

/// An answer on its way back.
pub(crate) struct Answered {
    pub(crate) sender: Sender,
    pub(crate) gateway: String,
    pub(crate) id: CallId,
    pub(crate) answer: Answer,
}

pub(crate) struct Network {
    pub(crate) weather: Weather,
    random: Random,
    sent: Vec<Sent>,
}

impl Network {
    pub(crate) fn new(weather: Weather, noise: u64) -> Self {
        Self { weather, random: Random::of(noise, "network"), sent: Vec::new() }
    }

    pub(crate) fn send(&mut self, at_ms: u64, sender: Sender, gateway: String, id: CallId, request: Request) {
        self.sent.push(Sent { at_ms, sender, gateway, id, request });
    }

    pub(crate) fn due_ms(&self) -> u64 {
        self.sent.iter().map(|sent| sent.at_ms).min().unwrap_or(u64::MAX)
    }

    /// What has arrived by now is done, or not, or done and its answer lost.
    pub(crate) fn deliver(
        &mut self,
        now: Now,
        gateways: &mut [GatewayProcess],
        api: &Api,
        witness: &mut Witness,
    ) -> Vec<Answered> {
        let (due, later): (Vec<_>, Vec<_>) = self.sent.drain(..).partition(|sent| sent.at_ms <= now.ms);
        self.sent = later;
        due.into_iter()
            .map(|Sent { sender, gateway, id, request, .. }| {
                let reached = gateways.iter_mut().find(|process| process.name == gateway && process.is_up());
                let request_lost = self.random.strikes(self.weather.request_lost);
                let outcome_lost = self.random.strikes(self.weather.outcome_lost);
                let reached = reached.filter(|_| !request_lost);
                let answer = match request {
                    Request::Put(body) => {
                        let answered =
                            reached.and_then(|process| put(process, sender, &body, now, api, witness));
                        Answer::Put(
                            answered
                                .filter(|_| !outcome_lost)
                                .unwrap_or_else(|| PutOutcome::Failed("no answer".to_owned())),
                        )
                    }
                    Request::Orders(body) => {
                        let answered =
                            reached.and_then(|process| put_orders(process, &body, now, api, witness));
                        Answer::Orders(
                            answered
                                .filter(|_| !outcome_lost)
                                .unwrap_or_else(|| OrdersOutcome::Failed("no answer".to_owned())),
                        )
                    }
                    Request::Settings(body) => {
                        let answered =
                            reached.and_then(|process| put_settings(process, &body, now, api, witness));
                        Answer::Settings(
                            answered
                                .filter(|_| !outcome_lost)
                                .unwrap_or_else(|| SettingsOutcome::Failed("no answer".to_owned())),
                        )
                    }
                    Request::Brokers(body) => {
                        let answered = reached.map(|process| put_brokers(process, body, now, api, witness));
                        Answer::Brokers(
                            answered
                                .filter(|_| !outcome_lost)
                                .unwrap_or_else(|| BrokersOutcome::Failed("no answer".to_owned())),
                        )
                    }
                    Request::Upload { digest, bytes } => Answer::Upload(match reached {
                        None => UploadOutcome::Failed("no connection".to_owned()),
                        Some(_) if wasmbed_agent::module_digest(&bytes) != digest => {
                            UploadOutcome::SourceGone
                        }
                        Some(process) => match process.put_module(&bytes, process.clock.now(now.ms)) {
                            true => UploadOutcome::Held,
                            false => UploadOutcome::Failed("507".to_owned()),
                        },
                    }),
                };
                Answered { sender, gateway, id, answer }
            })
            .collect()
    }
}

fn put(
    process: &mut GatewayProcess,
    sender: Sender,
    body: &PutSets,
    now: Now,
    api: &Api,
    witness: &mut Witness,
) -> Option<PutOutcome> {
    Some(match process.put_sets(body, process.clock.now(now.ms), api)? {
        Ok(answer) => {
            witness.gateway_writes(&process.name, now.ms);
            witness.put_accepted(&process.name, process.disks, sender, body.leader_term);
            PutOutcome::Answered(answer)
        }
        Err(Refused::Fenced(refusal)) => PutOutcome::Fenced(refusal),
        Err(Refused::Invalid(refusal) | Refused::Unavailable(refusal)) => PutOutcome::Failed(refusal.message),
    })
}

fn put_orders(
    process: &mut GatewayProcess,
    body: &PutDecommissions,
    now: Now,
    api: &Api,
    witness: &mut Witness,
) -> Option<OrdersOutcome> {
    Some(match process.put_orders(body, process.clock.now(now.ms), api)? {
        Ok(answer) => {
            witness.gateway_writes(&process.name, now.ms);
            OrdersOutcome::Answered(answer)
        }
        Err(Refused::Fenced(refusal)) => OrdersOutcome::Fenced(refusal),
        Err(Refused::Invalid(refusal) | Refused::Unavailable(refusal)) => {
            OrdersOutcome::Failed(refusal.message)
        }
    })
}

fn put_settings(
    process: &mut GatewayProcess,
    body: &PutSettings,
    now: Now,
    api: &Api,
    witness: &mut Witness,
) -> Option<SettingsOutcome> {
    Some(match process.put_settings(body, process.clock.now(now.ms), api)? {
        Ok(answer) => {
            witness.gateway_writes(&process.name, now.ms);
            SettingsOutcome::Answered(answer)
        }
        Err(Refused::Fenced(refusal)) => SettingsOutcome::Fenced(refusal),
        Err(Refused::Invalid(refusal) | Refused::Unavailable(refusal)) => {
            SettingsOutcome::Failed(refusal.message)
        }
    })
}

fn put_brokers(
    process: &mut GatewayProcess,
    body: PutBrokers,
    now: Now,
    api: &Api,
    witness: &mut Witness,
) -> BrokersOutcome {
    match process.put_brokers(body, process.clock.now(now.ms), api) {
        Ok(_) => {
            witness.gateway_writes(&process.name, now.ms);
            BrokersOutcome::Taken
        }
        Err(Refused::Fenced(refusal)) => BrokersOutcome::Fenced(refusal),
        Err(Refused::Invalid(refusal) | Refused::Unavailable(refusal)) => {
            BrokersOutcome::Failed(refusal.message)
        }
    }
}
