//! Bounds and shapes that the resources' schemas share. Every string, list and map has a bound from the first version
//! on: a bound can't be tightened later, and the API server's CEL cost estimate needs it.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A Kubernetes object's name (RFC 1123 subdomain).
pub(crate) const NAME_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Longest name of an object, characters.
pub(crate) const NAME_MAX: u64 = 253;
/// Standard base64 with padding (RFC 4648, section 4); no URL alphabet, no line breaks.
pub(crate) const BASE64_PATTERN: &str =
    r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$";
/// `sha256:` and 64 lower-case hex digits.
pub(crate) const DIGEST_PATTERN: &str = "^sha256:[0-9a-f]{64}$";
/// 64 lower-case hex digits.
pub(crate) const HASH_PATTERN: &str = "^[0-9a-f]{64}$";
/// 16 bytes, hexadecimal.
pub(crate) const NONCE_PATTERN: &str = "^[0-9a-f]{32}$";
/// A factory's serial.
pub(crate) const SERIAL_PATTERN: &str = "^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$";
/// The id of a pairing token.
pub(crate) const PAIRING_ID_PATTERN: &str = "^[0-9a-f]{8}$";
/// Lower-case words with dashes: capabilities.
pub(crate) const WORD_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Name of an I2C bus.
pub(crate) const I2C_NAME_PATTERN: &str = "^i2c[0-9]$";
/// Name of a pin; boards number them below 1,024.
pub(crate) const GPIO_NAME_PATTERN: &str = "^gpio(0|[1-9][0-9]{0,2}|10[0-2][0-9])$";
/// Name of a chip select: that of an SPI bus, a point and its number, as Linux names such devices.
pub(crate) const SPI_NAME_PATTERN: &str = "^spi[0-9]\\.[0-7]$";
/// Name of a UART.
pub(crate) const UART_NAME_PATTERN: &str = "^uart[0-9]$";
/// Name of a topic: levels between slashes, none empty, and no wildcard of MQTT.
pub(crate) const TOPIC_PATTERN: &str = "^[-A-Za-z0-9._]+(/[-A-Za-z0-9._]+)*$";
/// Longest name of a topic, characters.
pub(crate) const TOPIC_MAX: u64 = 64;
/// No NUL: it ends a text in C, and with it what an application gets to see.
pub(crate) const NO_NUL_PATTERN: &str = r"^[^\x00]*$";
/// Name of an environment variable, or the beginning of one.
pub(crate) const ENV_NAME_PATTERN: &str = r"^[^=\x00]*$";
/// Longest name of an environment variable, characters.
pub(crate) const ENV_NAME_MAX: u64 = 64;
/// Key of a Secret's data.
pub(crate) const SECRET_KEY_PATTERN: &str = "^[-._a-zA-Z0-9]+$";
/// A UUID (RFC 9562), hyphenated.
pub(crate) const UID_PATTERN: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";
/// `host:port`, the host in brackets if it is an IPv6 address.
pub(crate) const ADDRESS_PATTERN: &str = r"^([-._A-Za-z0-9]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$";
/// `mqtt://` or `mqtts://`, a host and perhaps a port; or `https://` with the same and perhaps a path and a query (RFC 3986). No user, and
/// no fragment.
pub(crate) const BROKER_URL_PATTERN: &str = concat!(
    r"^(mqtts?://[A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?(:[0-9]{1,5})?",
    r"|https://[A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[-A-Za-z0-9._~!$&'()*+,;=:@/?%]*)?)$",
);
/// RFC 3339 date and time, characters.
pub(crate) const TIME_MAX: u64 = 40;
/// A text for people, characters.
pub(crate) const TEXT_MAX: u64 = 1_024;

/// Base64 of 128 KiB: four characters for every three bytes.
pub(crate) const INLINE_MODULE_BASE64_MAX: u64 = 174_764;
/// Base64 of 1 MiB.
pub(crate) const MODULE_BASE64_MAX: u64 = 1_398_104;
/// Base64 of a module's magic number and version, the shortest module there is.
pub(crate) const MODULE_BASE64_MIN: u64 = 12;

/// `metav1.Condition`s, a map by type.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": {
                    "description": "What it speaks of.",
                    "type": "string",
                    "maxLength": 316,
                    "pattern": "^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
                "status": {
                    "description": "Whether it holds.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "reason": {
                    "description": "Why, as one of the documented reasons.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 64,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": {
                    "description": "For people.",
                    "type": "string",
                    "maxLength": 4096,
                },
                "lastTransitionTime": {
                    "description": "When status last changed.",
                    "type": "string",
                    "format": "date-time",
                    "maxLength": TIME_MAX,
                },
                "observedGeneration": {
                    "description": "The generation that it speaks of.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
            },
        },
    })
}

/// `metav1.LabelSelector`, bounded.
pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    let key = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";
    let value = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "description": "Labels that an object must have, with these values.",
                "type": "object",
                "maxProperties": 32,
                "additionalProperties": { "type": "string", "maxLength": 63, "pattern": value },
            },
            "matchExpressions": {
                "description": "Requirements that an object's labels must all meet.",
                "type": "array",
                "maxItems": 32,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {
                            "description": "Key of the label.",
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 317,
                            "pattern": key,
                        },
                        "operator": {
                            "description": "How the label relates to values.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "At least one for In and NotIn, none for Exists and DoesNotExist.",
                            "type": "array",
                            "maxItems": 64,
                            "x-kubernetes-list-type": "atomic",
                            "items": { "type": "string", "maxLength": 63, "pattern": value },
                        },
                    },
                    "x-kubernetes-validations": [{
                        "rule": "(self.operator == 'In' || self.operator == 'NotIn') == (has(self.values) && size(self.values) > 0)",
                        "message": "In and NotIn need values, Exists and DoesNotExist take none",
                    }],
                },
            },
        },
    })
}

/// Values of settings, numbers or texts, by name.
pub(crate) fn setting_values(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "maxLength": 64,
        },
        "x-kubernetes-validations": [{
            "rule": "self.all(name, name.matches('^[A-Za-z][-A-Za-z0-9_.]{0,31}$'))",
            "message": "a name has a letter and then at most 31 letters, digits, '_', '-' or '.'",
        }],
    })
}

/// Environment variables.
pub(crate) fn environment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 1024, "pattern": NO_NUL_PATTERN },
        "x-kubernetes-validations": [{
            "rule": "self.all(name, size(name) > 0 && size(name) <= 64)",
            "message": "a name has 1 to 64 characters",
        }, {
            "rule": "self.all(name, name.matches('^[^=\\\\x00]*$'))",
            "message": "a name has no '=' and no NUL",
        }],
    })
}
