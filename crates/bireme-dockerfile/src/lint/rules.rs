//! The rules: their names, what they say, where they are explained.
//!
//! Source: docs.docker.com/reference/build-checks; github.com/moby/buildkit, `frontend/dockerfile/linter/ruleset.go`.

/// One rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// As `# check=skip=` names it.
    pub name: &'static str,
    /// What it asks for.
    pub description: &'static str,
    /// The last part of the address at which it is explained.
    page: &'static str,
    /// Asked only where it is named.
    pub experimental: bool,
}

impl Rule {
    const fn new(name: &'static str, page: &'static str, description: &'static str) -> Self {
        Self { name, description, page, experimental: false }
    }

    const fn experimental(self) -> Self {
        Self { experimental: true, ..self }
    }

    /// Where it is explained.
    pub fn url(&self) -> String {
        format!("https://docs.docker.com/go/dockerfile/rule/{}/", self.page)
    }
}

pub(crate) const STAGE_NAME_CASING: Rule =
    Rule::new("StageNameCasing", "stage-name-casing", "Stage names should be lowercase");
pub(crate) const FROM_AS_CASING: Rule =
    Rule::new("FromAsCasing", "from-as-casing", "The 'as' keyword should match the case of the 'from' keyword");
pub(crate) const NO_EMPTY_CONTINUATION: Rule = Rule::new(
    "NoEmptyContinuation",
    "no-empty-continuation",
    "Empty continuation lines will become errors in a future release",
);
pub(crate) const CONSISTENT_INSTRUCTION_CASING: Rule = Rule::new(
    "ConsistentInstructionCasing",
    "consistent-instruction-casing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
);
pub(crate) const DUPLICATE_STAGE_NAME: Rule =
    Rule::new("DuplicateStageName", "duplicate-stage-name", "Stage names should be unique");
pub(crate) const RESERVED_STAGE_NAME: Rule =
    Rule::new("ReservedStageName", "reserved-stage-name", "Reserved words should not be used as stage names");
pub(crate) const JSON_ARGS_RECOMMENDED: Rule = Rule::new(
    "JSONArgsRecommended",
    "json-args-recommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
);
pub(crate) const MAINTAINER_DEPRECATED: Rule = Rule::new(
    "MaintainerDeprecated",
    "maintainer-deprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
);
pub(crate) const UNDEFINED_ARG_IN_FROM: Rule =
    Rule::new("UndefinedArgInFrom", "undefined-arg-in-from", "FROM command must use declared ARGs");
pub(crate) const WORKDIR_RELATIVE_PATH: Rule = Rule::new(
    "WorkdirRelativePath",
    "workdir-relative-path",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image \
     changes",
);
pub(crate) const UNDEFINED_VAR: Rule =
    Rule::new("UndefinedVar", "undefined-var", "Variables should be defined before their use");
pub(crate) const MULTIPLE_INSTRUCTIONS_DISALLOWED: Rule = Rule::new(
    "MultipleInstructionsDisallowed",
    "multiple-instructions-disallowed",
    "Multiple instructions of the same type should not be used in the same stage",
);
pub(crate) const LEGACY_KEY_VALUE_FORMAT: Rule = Rule::new(
    "LegacyKeyValueFormat",
    "legacy-key-value-format",
    "Legacy key/value format with whitespace separator should not be used",
);
pub(crate) const REDUNDANT_TARGET_PLATFORM: Rule = Rule::new(
    "RedundantTargetPlatform",
    "redundant-target-platform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
);
pub(crate) const SECRETS_USED_IN_ARG_OR_ENV: Rule = Rule::new(
    "SecretsUsedInArgOrEnv",
    "secrets-used-in-arg-or-env",
    "Sensitive data should not be used in the ARG or ENV commands",
);
pub(crate) const INVALID_DEFAULT_ARG_IN_FROM: Rule = Rule::new(
    "InvalidDefaultArgInFrom",
    "invalid-default-arg-in-from",
    "Default value for global ARG results in an empty or invalid base image name",
);
pub(crate) const FROM_PLATFORM_FLAG_CONST_DISALLOWED: Rule = Rule::new(
    "FromPlatformFlagConstDisallowed",
    "from-platform-flag-const-disallowed",
    "FROM --platform flag should not use a constant value",
);
pub(crate) const COPY_IGNORED_FILE: Rule =
    Rule::new("CopyIgnoredFile", "copy-ignored-file", "Attempting to Copy file that is excluded by .dockerignore")
        .experimental();
pub(crate) const INVALID_DEFINITION_DESCRIPTION: Rule = Rule::new(
    "InvalidDefinitionDescription",
    "invalid-definition-description",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not \
     intended to be a description comment, add an empty line or comment between the instruction and the comment.",
)
.experimental();
pub(crate) const EXPOSE_PROTO_CASING: Rule =
    Rule::new("ExposeProtoCasing", "expose-proto-casing", "Protocol in EXPOSE instruction should be lowercase");
pub(crate) const EXPOSE_INVALID_FORMAT: Rule = Rule::new(
    "ExposeInvalidFormat",
    "expose-invalid-format",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future \
     release",
);
