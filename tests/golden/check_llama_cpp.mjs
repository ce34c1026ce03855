// Loads GGUF files that `setpoint export gguf` wrote in llama.cpp: `node check_llama_cpp.mjs PROMPT FILE [FILE ...]`, after
// `npm install --ignore-scripts node-llama-cpp @node-llama-cpp/linux-x64` in the same folder (checked with 3.22.1).
//
// Prints the ids of the prompt, 40 greedy ids and their text, to compare with `setpoint generate --set generate.temperature=0`.
// One thread: llama.cpp's threads wait for each other without rest, so that on a busy machine several take minutes.

import {getLlama} from "node-llama-cpp";

const [prompt, ...files] = process.argv.slice(2);
const llama = await getLlama({build: "never", gpu: false, maxThreads: 1, logLevel: "error"});
for (const modelPath of files) {
    const model = await llama.loadModel({modelPath});
    const context = await model.createContext({contextSize: 256, threads: 1});
    const begin = model.tokens.shouldPrependBosToken ? [model.tokens.bos] : [];
    const ids = [...begin, ...model.tokenize(prompt)];
    const greedy = [];
    for await (const token of context.getSequence().evaluate(ids, {temperature: 0})) {
        if (greedy.push(token) === 40) break;
    }
    console.log(JSON.stringify({file: modelPath, prompt: ids, greedy, text: model.detokenize(greedy)}));
}
process.exit(0);
