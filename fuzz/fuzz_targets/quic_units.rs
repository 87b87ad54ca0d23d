//! See `rmpi_fuzz::targets::quic_units`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rmpi_fuzz::targets::quic_units(data));
