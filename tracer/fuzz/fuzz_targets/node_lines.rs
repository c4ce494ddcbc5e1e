#![no_main]

tracer_fuzz::fuzz!(node_lines);
