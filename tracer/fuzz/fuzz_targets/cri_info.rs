#![no_main]

tracer_fuzz::fuzz!(cri_info);
