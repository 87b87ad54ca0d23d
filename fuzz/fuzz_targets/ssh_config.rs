//! See `rmpi_fuzz::targets::ssh_config`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rmpi_fuzz::targets::ssh_config(data));
