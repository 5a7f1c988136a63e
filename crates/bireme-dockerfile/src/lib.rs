//! The language of Dockerfiles: grammar, words and variables, checks. Pure; nothing is built here.
