// Each line that ends in "wrong" must be refused by the compiler, and no other.

import { request } from "./request.js";
import type { components } from "./schema.js";

await request("get", "/v1/acount", {}); // wrong
await request("put", "/v1/account", {}); // wrong
await request("patch", "/v1/account", { body: { acadmy: "文学院" } }); // wrong
await request("patch", "/v1/account", { body: { academy: 5 } }); // wrong
await request("post", "/v1/account/keys", { body: { password: "correct horse" } }); // wrong
await request("post", "/v1/account/keys", { body: { name: "laptop", limits: { tokens: { totl: 1 } } } }); // wrong
await request("post", "/v1/account/keys", { body: { name: "laptop", capabilities: ["pictures"] } }); // wrong
await request("delete", "/v1/account/keys/{key_id}", { path: { id: "sk-ab12cd34ef" } }); // wrong
await request("get", "/v1/usage", { query: { limit: "fifty" } }); // wrong
await request("post", "/auth/login", { body: { username: "小明" } }); // wrong
await request("post", "/auth/login", {}); // wrong
await request("post", "/textModel/chat", { body: { dialog: [{ role: "robot", content: "hi" }] } }); // wrong

export const balances: components["schemas"]["Balances"] = { tokens: 1, pic_times: 1, voice_ms: null };
export const unmetered: components["schemas"]["Balances"] = { tokens: null, pic_times: 1, voice_ms: null }; // wrong

const answer = await request("get", "/v1/account", {});
export const tokens: number = answer.status === 200 ? answer.body.balances.tokens : 0;
export const words: string = answer.status === 200 ? answer.body.balances.tokens : ""; // wrong
export const uuid: string = answer.status === 200 ? answer.body.uuid : ""; // wrong
export const code: "LOGIN_ERROR" | 0 = answer.body.code; // wrong
