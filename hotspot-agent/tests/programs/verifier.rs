//! What the kernel's verifier has to walk through until it accepts a program.

use aya::programs::{Program, ProgramInfo};

use crate::rig::Rig;

/// `BPF_COMPLEXITY_LIMIT_INSNS` (include/linux/bpf.h): beyond it the verifier refuses.
const INSTRUCTIONS_MAX: u32 = 1_000_000;

fn walked(rig: &mut Rig) -> Vec<(String, u32)> {
    let instructions = |info: ProgramInfo| info.verified_instruction_count().unwrap();
    rig.capture
        .programs(0)
        .programs()
        .map(|(name, program): (&str, &Program)| (name.to_owned(), instructions(program.info().unwrap())))
        .collect()
}

#[test]
fn the_verifier_walks_less_than_half_of_its_limit() {
    for decapsulate in [false, true] {
        for client_nets in [vec![], vec!["10.0.0.0/8".parse().unwrap()]] {
            let mut rig = Rig::with(|settings| {
                settings.decapsulate = decapsulate;
                settings.client_nets.clone_from(&client_nets);
            });
            for (program, instructions) in walked(&mut rig) {
                assert!(
                    instructions < INSTRUCTIONS_MAX / 2,
                    "{program} with decapsulate {decapsulate}: {instructions}"
                );
            }
        }
    }
}
