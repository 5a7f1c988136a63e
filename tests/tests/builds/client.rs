//! Those who ask for builds: the real clients, as people have them installed.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Client {
    /// `docker buildx bake`, with the newest buildx.
    Bake,
    /// `docker build` with the newest buildx.
    Buildx,
    /// `docker build` with the buildx of Debian's stable release.
    BuildxOld,
    /// `docker build` without a plugin, by the classic endpoint.
    Classic,
    /// `docker compose build` by its own copy of buildx.
    Compose,
    /// `docker compose build`, which hands over to the newest buildx.
    ComposeBake,
}

impl Client {
    pub(crate) const ALL: [Self; 6] =
        [Self::Bake, Self::Buildx, Self::BuildxOld, Self::Classic, Self::Compose, Self::ComposeBake];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bake => "bake",
            Self::Buildx => "buildx",
            Self::BuildxOld => "buildx-old",
            Self::Classic => "classic",
            Self::Compose => "compose",
            Self::ComposeBake => "compose-bake",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|client| client.name() == name)
    }

    /// The folder of `target/setup` whose plugins it has.
    pub(crate) fn config(self) -> &'static str {
        match self {
            Self::Bake | Self::Buildx | Self::ComposeBake => "docker-buildx",
            Self::BuildxOld => "docker-buildx-old",
            Self::Classic | Self::Compose => "docker",
        }
    }

    /// What the word `build` of steps stands for.
    pub(crate) fn build(self) -> &'static str {
        match self {
            Self::Bake => "docker buildx bake --progress=plain",
            Self::Buildx | Self::BuildxOld => "docker build --progress=plain",
            Self::Classic => "DOCKER_BUILDKIT=0 docker build",
            Self::Compose | Self::ComposeBake => "docker compose --ansi=never --progress=plain build",
        }
    }

    /// What follows it where a case has no steps: `docker build` takes the case's flags, the others find all in a file.
    pub(crate) fn usual_arguments(self, flags: &[String]) -> String {
        match self {
            Self::Bake => "-f docker-bake.hcl".to_owned(),
            Self::Compose | Self::ComposeBake => String::new(),
            Self::Buildx | Self::BuildxOld | Self::Classic => format!("{} -t \"$TAG\" .", flags.join(" ")),
        }
    }
}
