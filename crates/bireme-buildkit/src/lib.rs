//! BuildKit's protocol, as its clients speak it to Docker's engine.
