// Runs GGUF files in llama.cpp, after `npm install --ignore-scripts node-llama-cpp @node-llama-cpp/linux-x64` in the same folder (checked
// with 3.22.1).
//
// `node check_llama_cpp.mjs PROMPT FILE [FILE ...]` loads files that `setpoint export gguf` wrote and prints the ids of the prompt, 40 greedy
// ids and their text, to compare with `setpoint generate --set generate.temperature=0`.
//
// `node check_llama_cpp.mjs --golden TRANSFORMER DIR` compares the greedy ids of each DIR/CASE.gguf (`make_gguf.py --for-llama-cpp DIR`) with
// those of transformers, which are in DIR/CASE or else in TRANSFORMER/CASE, and exits with 1 if one differs. TRANSFORMER is the folder
// `transformer` next to this file.
//
// One thread: llama.cpp's threads wait for each other without rest, so that on a busy machine several take minutes.

import {existsSync, readdirSync, readFileSync} from "node:fs";
import {join} from "node:path";
import {getLlama} from "node-llama-cpp";

const llama = await getLlama({build: "never", gpu: false, maxThreads: 1, logLevel: "error"});

async function open(modelPath) {
    const model = await llama.loadModel({modelPath});
    // Keys and values in f32 rather than f16, so that nothing is rounded.
    const cache = {experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32", flashAttention: false};
    return {model, context: await model.createContext({contextSize: 256, threads: 1, ...cache})};
}

async function greedyIds(context, ids, count) {
    const sequence = context.getSequence();
    const found = [];
    for await (const token of sequence.evaluate(ids, {temperature: 0, yieldEogToken: true})) {
        if (found.push(token) === count) break;
    }
    sequence.dispose();
    return found;
}

async function compare(transformer, dir) {
    let equal = true;
    const cases = readdirSync(dir).filter((name) => name.endsWith(".gguf")).map((name) => name.slice(0, -".gguf".length));
    for (const name of cases.sort()) {
        const [made, golden] = [dir, transformer].map((folder) => join(folder, name, "greedy.json"));
        const {rows, max_new_tokens: count} = JSON.parse(readFileSync(existsSync(made) ? made : golden, "utf8"));
        const {model, context} = await open(join(dir, `${name}.gguf`));
        let same = 0;
        for (const {prompt, greedy} of rows) {
            same += (await greedyIds(context, prompt, count)).join() === greedy.join();
        }
        await model.dispose();
        console.log(`${name}: ${same} of ${rows.length} greedy paths of ${count} tokens are equal`);
        equal &&= same === rows.length;
    }
    return equal && cases.length > 0;
}

const args = process.argv.slice(2);
if (args[0] === "--golden") {
    process.exit(await compare(args[1], args[2]) ? 0 : 1);
}
const [prompt, ...files] = args;
for (const file of files) {
    const {model, context} = await open(file);
    const begin = model.tokens.shouldPrependBosToken ? [model.tokens.bos] : [];
    const ids = [...begin, ...model.tokenize(prompt)];
    const greedy = await greedyIds(context, ids, 40);
    console.log(JSON.stringify({file, prompt: ids, greedy, text: model.detokenize(greedy)}));
}
process.exit(0);
