/**
 * HTTP of Node.js, by require: an import reads every name of the module, and some of these load fetch and web sockets, which
 * takes 20 ms of each start, and memory that nobody uses.
 */
import { createRequire } from 'node:module';
import type * as Http from 'node:http';
import type * as Https from 'node:https';

const load = createRequire(import.meta.url);

export const nodeHttp = (): typeof Http => load('node:http') as typeof Http;
export const nodeHttps = (): typeof Https => load('node:https') as typeof Https;
