//! See `rmpi_fuzz::targets::pmi_stream`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rmpi_fuzz::targets::pmi_stream(data));
