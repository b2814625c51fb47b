// Fetch with the types of the description: the path and the method decide what goes in and what comes out.

import type { paths } from "./schema.js";

type Method = "get" | "put" | "post" | "delete" | "patch";
type Operation<P extends keyof paths, M extends Method> = Exclude<paths[P][M], undefined>;
export type Methods<P extends keyof paths> = {
  [M in Method]: Operation<P, M> extends never ? never : M;
}[Method];

type Json<T> = T extends { content: { "application/json": infer Body } } ? Body : never;
type Parameters<O> = O extends { parameters: infer P } ? { [K in keyof P as P[K] extends undefined ? never : K]: P[K] } : never;
type Requested<O> = O extends { requestBody: infer Body }
  ? { body: Json<Body> }
  : O extends { requestBody?: infer Body }
    ? { body?: Json<Exclude<Body, undefined>> }
    : unknown;
export type Options<P extends keyof paths, M extends Methods<P>> = Partial<Parameters<Operation<P, M>>> &
  Requested<Operation<P, M>>;
export type Answers<P extends keyof paths, M extends Methods<P>> =
  Operation<P, M> extends { responses: infer R }
    ? { [Status in keyof R]: { status: Status; body: Json<R[Status]> } }[keyof R]
    : never;

export declare function request<P extends keyof paths, M extends Methods<P>>(
  method: M,
  path: P,
  options: Options<P, M>,
): Promise<Answers<P, M>>;
