# The commands of the project; `just` lists them.

# list the recipes
default:
    @just --list

# every test on flex and ndarray
test:
    cargo test --workspace

# the same, and the tests on wgpu and on devices of other processes
test-all:
    cargo test --workspace --features ndarray,wgpu,remote

# what CI runs
ci:
    bash .ci/run

# formats every file, also those that a macro declares
fmt:
    git ls-files '*.rs' | xargs rustfmt --edition 2024

# formatting, lints, docs
check:
    cargo fmt --all --check
    git ls-files '*.rs' | xargs rustfmt --check --edition 2024
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# writes docs/SETTINGS.md from the settings and their doc comments, the tables of docs/COMING_FROM.md from the names, and that of
# docs/MODELS.md from measurements
settings:
    SETPOINT_WRITE_DOCS=1 cargo test --workspace --test it -- the_reference_is_current
    SETPOINT_WRITE_DOCS=1 cargo test --workspace --lib -- the_docs_have_the_same_names
    SETPOINT_WRITE_DOCS=1 cargo test --workspace --test it -- the_table_of_differences_is_current

# the whole job on the small model that comes with the project
demo:
    cargo run --release -- demo

# licences and advisories of the dependencies (needs cargo-deny)
deny:
    cargo deny check

# the goldens again, from pinned Python packages and the test data (tests/golden/README.md), but for those of Arena-Hard, which need a
# clone of its repository
goldens:
    python3 -m venv .venv
    .venv/bin/pip install --quiet -r tests/golden/requirements.txt
    for script in tests/golden/make_*.py crates/*/tests/golden/make_*.py; do \
        echo "$script"; \
        case "$script" in *make_arena_hard.py) continue;; \
        *make_lm_eval.py|*make_lm_eval_hellaswag.py|*make_lm_eval_winogrande_truthfulqa.py) \
            model="${SETPOINT_TEST_DATA:-../shared/data}/model/stories260K";; \
        *) model=;; esac; \
        .venv/bin/python "$script" $model || exit 1; \
    done
