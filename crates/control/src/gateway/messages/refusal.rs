//! Why a message is not taken, now or ever.

/// Why a message of a device is not taken; it is acknowledged all the same, since it would not be taken later either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageRefusal {
    /// The device's set has no such application.
    UnknownApplication,
    /// The application does not declare the topic.
    UnknownTopic,
    /// More messages than the topic's rate.
    Rate,
    /// The device has as many bytes here as it may.
    DeviceShare,
}

impl MessageRefusal {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::UnknownApplication, Self::UnknownTopic, Self::Rate, Self::DeviceShare];

    /// In CamelCase, for metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UnknownApplication => "UnknownApplication",
            Self::UnknownTopic => "UnknownTopic",
            Self::Rate => "Rate",
            Self::DeviceShare => "DeviceShare",
        }
    }

    /// For the device, and for whoever reads its log.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::UnknownApplication => "message refused: its application is not in the device's set",
            Self::UnknownTopic => "message refused: its application does not declare the topic",
            Self::Rate => "message refused: more than the topic's per_second",
            Self::DeviceShare => "message refused: the device has used its share of the gateway's disk",
        }
    }
}
