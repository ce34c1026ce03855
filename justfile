# The commands of the project; `just` lists them.

# list the recipes
default:
    @just --list

# every test on flex and ndarray
test:
    cargo test --workspace

# the same, and the tests on wgpu and on devices of other processes
test-all:
    cargo test --workspace --features wgpu,remote

# what CI runs
ci:
    bash .ci/run

# formatting, lints, docs
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# the whole job on the small model that comes with the project
demo:
    cargo run --release -- demo

# licences and advisories of the dependencies (needs cargo-deny)
deny:
    cargo deny check

# the goldens again, from pinned Python packages
goldens:
    cat tests/golden/README.md
