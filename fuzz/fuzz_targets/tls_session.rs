//! See `rmpi_fuzz::targets::tls_session`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rmpi_fuzz::targets::tls_session(data));
