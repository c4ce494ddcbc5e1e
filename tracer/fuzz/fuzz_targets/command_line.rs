#![no_main]

tracer_fuzz::fuzz!(command_line);
