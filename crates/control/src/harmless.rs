//! Text that another party wrote.

use std::borrow::Cow;

use wasmbed_protocol::Harmless;

/// Text from a device, a file or an API, escaped for logs, terminals and resources, and cut to `bytes_max` bytes.
#[must_use]
pub fn harmless(text: &str, bytes_max: usize) -> Cow<'_, str> {
    let harmless = Harmless { text, bytes_max };
    if harmless.plain_bytes() == text.len() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(harmless.to_string())
}
