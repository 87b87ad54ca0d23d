//! See `rmpi_fuzz::targets::daemon_machine`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rmpi_fuzz::targets::daemon_machine(data));
