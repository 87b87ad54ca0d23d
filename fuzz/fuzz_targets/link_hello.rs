//! See `rmpi_fuzz::targets::link_hello`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rmpi_fuzz::targets::link_hello(data));
