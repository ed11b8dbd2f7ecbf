//! Hands the memory map to the linker.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    wasmbed_firmware_link::link()
}
