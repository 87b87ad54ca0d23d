//! See `rmpi_fuzz::targets::shm_peer`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rmpi_fuzz::targets::shm_peer(data));
