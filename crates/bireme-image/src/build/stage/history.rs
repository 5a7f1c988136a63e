//! Histories as BuildKit writes them.
//!
//! Source: BuildKit, `frontend/dockerfile/dockerfile2llb/convert.go`, `commitToHistory` and what calls it.

use bireme_dockerfile::{Instruction, Keyword};

use crate::model::ImageConfig;

/// What an instruction that runs nothing did, given the configuration that it led to.
pub(super) fn created_by(at: &Instruction, config: &ImageConfig) -> String {
    let list = |words: &Option<Vec<String>>| {
        let words: Vec<String> = words.iter().flatten().map(|word| format!("{word:?}")).collect();
        format!("[{}]", words.join(" "))
    };
    match at.keyword {
        Keyword::Cmd => format!("CMD {}", list(&config.cmd)),
        Keyword::Entrypoint => format!("ENTRYPOINT {}", list(&config.entrypoint)),
        Keyword::Workdir => format!("WORKDIR {}", config.working_dir),
        Keyword::User => format!("USER {}", config.user),
        Keyword::Stopsignal => format!("STOPSIGNAL {}", config.stop_signal.as_deref().unwrap_or_default()),
        Keyword::Shell => format!("SHELL {}", list(&config.shell)),
        Keyword::Volume => format!("VOLUME [{}]", at.arguments().join(" ")),
        Keyword::Expose => {
            let ports: Vec<String> = config.exposed_ports.keys().map(|port| format!("{port}:{{}}")).collect();
            format!("EXPOSE map[{}]", ports.join(" "))
        }
        _ => at.text.clone(),
    }
}
