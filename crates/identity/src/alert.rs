//! What a peer's alert means for this side.

use core::fmt;

use rustls::AlertDescription;

/// An alert of RFC 8446, section 6, that a peer ended a connection with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert(pub u8);

impl Alert {
    /// close_notify: an end in order.
    pub const CLOSE_NOTIFY: Self = Self(0);

    /// Its name in RFC 8446; none for a number that has none there.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Some(match AlertDescription::from(self.0) {
            AlertDescription::CloseNotify => "close_notify",
            AlertDescription::UnexpectedMessage => "unexpected_message",
            AlertDescription::BadRecordMac => "bad_record_mac",
            AlertDescription::RecordOverflow => "record_overflow",
            AlertDescription::HandshakeFailure => "handshake_failure",
            AlertDescription::BadCertificate => "bad_certificate",
            AlertDescription::UnsupportedCertificate => "unsupported_certificate",
            AlertDescription::CertificateRevoked => "certificate_revoked",
            AlertDescription::CertificateExpired => "certificate_expired",
            AlertDescription::CertificateUnknown => "certificate_unknown",
            AlertDescription::IllegalParameter => "illegal_parameter",
            AlertDescription::UnknownCA => "unknown_ca",
            AlertDescription::AccessDenied => "access_denied",
            AlertDescription::DecodeError => "decode_error",
            AlertDescription::DecryptError => "decrypt_error",
            AlertDescription::ProtocolVersion => "protocol_version",
            AlertDescription::InternalError => "internal_error",
            AlertDescription::CertificateRequired => "certificate_required",
            AlertDescription::NoApplicationProtocol => "no_application_protocol",
            _ => return None,
        })
    }

    /// What it means for our certificate.
    #[must_use]
    pub fn hint(self) -> Option<&'static str> {
        Some(match AlertDescription::from(self.0) {
            AlertDescription::UnknownCA => "it does not trust the authority of our certificate",
            // Another fleet's root may have the same name; then only the signature differs.
            AlertDescription::DecryptError => {
                "our certificate does not chain to the root that it trusts, although the names agree"
            }
            AlertDescription::CertificateExpired => "our certificate has expired, or the clocks differ",
            AlertDescription::CertificateRevoked => "our certificate is revoked",
            AlertDescription::CertificateRequired => "it requires a certificate of us",
            AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied => "it does not accept our certificate",
            _ => return None,
        })
    }
}

impl fmt::Display for Alert {
    /// `unknown_ca (48): it does not trust the authority of our certificate`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name().unwrap_or("of number"), self.0)?;
        match self.hint() {
            Some(hint) => write!(f, ": {hint}"),
            None => Ok(()),
        }
    }
}
