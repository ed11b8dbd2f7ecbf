//! Why brokers are not reached, for people.

use std::time::Duration;

use wasmbed_api::ReasonCode;
use wasmbed_control::gateway::BrokerFailure;

/// From the first packet of TCP until the broker has accepted the connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// It did not accept the connection in time.
pub(super) fn unanswered() -> BrokerFailure {
    let seconds = CONNECT_TIMEOUT.as_secs();
    BrokerFailure::new(
        ReasonCode::BrokerUnreachable,
        &format!("the broker did not answer within {seconds} s"),
    )
}

/// A connection failed, or its TLS did.
pub(super) fn of_io(error: &std::io::Error) -> BrokerFailure {
    use std::io::ErrorKind;
    // Errors of TLS come within errors of I/O.
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(tls) = inner {
        return BrokerFailure::new(ReasonCode::BrokerUntrusted, &format!("TLS: {tls}"));
    }
    let message = match error.kind() {
        ErrorKind::ConnectionRefused => {
            "nothing listens at the address of spec.url: connection refused".to_owned()
        }
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::UnexpectedEof => {
            "the broker closed the connection".to_owned()
        }
        ErrorKind::TimedOut => return unanswered(),
        _ => format!("no connection: {error}"),
    };
    BrokerFailure::new(ReasonCode::BrokerUnreachable, &message)
}
