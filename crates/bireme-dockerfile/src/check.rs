//! What must hold of an instruction before anything is expanded, in the order in which BuildKit looks at it.

use crate::error::ParseError;
use crate::instruction::Instruction;
use crate::keyword::Keyword;
use crate::read;

/// # Errors
/// The first thing that is wrong with it.
pub(crate) fn instruction(at: &Instruction) -> Result<(), ParseError> {
    match at.keyword {
        Keyword::Add | Keyword::Copy => read::copy(at).map(drop),
        Keyword::Run => read::run(at).map(drop),
        Keyword::Env | Keyword::Label => at.check_flags().and_then(|()| read::pairs(at).map(drop)),
        Keyword::Arg => read::arguments(at).map(drop),
        Keyword::Healthcheck => read::healthcheck(at).map(drop),
        Keyword::Expose => {
            if at.rest.is_empty() {
                return Err(at.fault("EXPOSE requires at least one argument"));
            }
            at.check_flags()
        }
        Keyword::Volume => read::volumes(at).map(drop),
        Keyword::Shell => read::shell(at).map(drop),
        Keyword::Onbuild => read::onbuild(at).map(drop),
        Keyword::Maintainer | Keyword::Stopsignal | Keyword::User | Keyword::Workdir => {
            read::single(at)?;
            at.check_flags()
        }
        Keyword::Cmd | Keyword::Entrypoint => at.check_flags(),
        // Its own part of the grammar.
        Keyword::From => Ok(()),
    }
}
