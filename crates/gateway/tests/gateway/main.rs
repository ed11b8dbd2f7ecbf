//! A gateway process against a real embedded Kubernetes API, over real sockets and certificates.

#[cfg(test)]
mod api;
#[cfg(test)]
mod brokers;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod joining;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod operators;
#[cfg(test)]
mod presence;
#[cfg(test)]
mod receiving;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod support;
#[cfg(test)]
mod webhooks;
