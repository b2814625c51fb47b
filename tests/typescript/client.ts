// A client as somebody would write it, with the types of /openapi.json. It is compiled, not run.

import { request } from "./request.js";
import type { components } from "./schema.js";

type Profile = components["schemas"]["Profile"];

export async function signUp(username: string, password: string): Promise<string> {
  const { status, body } = await request("post", "/auth/register", {
    body: { username, password, email: "ming@example.com" },
  });
  if (status !== 200) return `${status}: ${body.msg}`;
  // Legacy addresses answer success and failure with 200; `code` tells them apart.
  if (body.code === 0) return body.msg;
  const refused: "USER_NAME_REPEAT" | "REGISTRATION_CLOSED" | "APP_QUERY_METHOD_ERROR" = body.code;
  return refused;
}

export async function tokensOf(uuid: string, username: string): Promise<number> {
  const answer = await request("get", "/v1/account", { header: { uuid, username } });
  if (answer.status !== 200) throw new Error(`${answer.status} ${answer.body.code}: ${answer.body.msg}`);
  const profile: Profile = answer.body;
  const opened: string | null = profile.opened_at;
  return opened === null ? 0 : profile.balances.tokens;
}

export async function createKey(password: string, csrf: string): Promise<string> {
  const answer = await request("post", "/v1/account/keys", {
    header: { "X-CSRF-Token": csrf },
    body: { name: "laptop", limits: { tokens: { total: 100_000 } }, capabilities: ["tokens"], password },
  });
  if (answer.status === 401) {
    const reason: "NOT_SIGNED_IN" | "LOGIN_ERROR" = answer.body.code;
    return reason;
  }
  return answer.status === 201 ? `${answer.body.secret} ${answer.body.key.limits.tokens.spent}` : answer.body.msg;
}

export async function revokeKey(keyId: string): Promise<boolean> {
  const answer = await request("delete", "/v1/account/keys/{key_id}", { path: { key_id: keyId } });
  return answer.status === 200;
}

export async function spending(uuid: string, username: string): Promise<number> {
  const { body } = await request("get", "/v1/usage", { header: { uuid, username }, query: { limit: 50, before: 20 } });
  if (body.code !== 0) return 0;
  return body.entries.filter((entry) => entry.unit === "token").reduce((sum, entry) => sum + entry.amount, 0);
}

export async function ask(question: string): Promise<string> {
  const { body } = await request("post", "/textModel/chat", { body: { dialog: [{ role: "user", content: question }] } });
  return body.code === 0 ? `${body.content} (${body.consume_token})` : body.msg;
}

export async function users(): Promise<string[]> {
  const { status, body } = await request("get", "/admin/query_table", {
    query: { table: "user", start: 0, query_range: 20 },
  });
  return status === 200 && body.code === 0 ? body.data.map((row) => row.Id) : [];
}
