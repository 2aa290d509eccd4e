/**
 * The token by which a host joins: one line of text with all that it needs to reach the cluster's etcd and to know that it
 * is the right one. It holds a password: no message shows any part of it.
 */
import { createHash } from 'node:crypto';
import * as z from 'zod';
import { TartanError } from '../lib/errors.js';

const payloadSchema = z
  .object({
    endpoints: z
      .array(z.string().regex(/^https:\/\/\S{1,300}$/))
      .min(1)
      .max(16)
      .readonly(),
    prefix: z.string().min(1).max(512),
    /** SHA-256 of the certificate (DER) of the CA, lower-case hexadecimal. */
    ca: z.string().regex(/^[0-9a-f]{64}$/),
    user: z.string().regex(/^[\x21-\x7e]{1,100}$/),
    password: z.string().regex(/^[\x21-\x7e]{8,200}$/),
  })
  .readonly();

export type JoinToken = z.infer<typeof payloadSchema>;

/** The first word of every token; the number is the version of what follows. */
const start = 'tartan1';
const sumLength = 8;

/** @returns `tartan1.PAYLOAD.SUM`, without spaces */
export function formatToken(token: JoinToken): string {
  const payload = Buffer.from(JSON.stringify(token)).toString('base64url');
  return `${start}.${payload}.${sumOf(payload)}`;
}

/** A word that may be a token: it must not be shown. */
export function looksLikeToken(word: string): boolean {
  return /^\s*tartan\d*\./i.test(word) || /^[A-Za-z0-9_.-]{60,}$/.test(word);
}

/**
 * Line breaks and spaces within, which a mail or a terminal adds, are passed over.
 * @throws TartanError USAGE that says what is wrong and shows nothing of it
 */
export function parseToken(text: string): JoinToken {
  const token = text.replace(/\s+/g, '');
  if (token === '') throw refusal('it is empty');
  const [, version, payload = '', sum = ''] = /^tartan(\d+)\.([^.]*)(?:\.([^.]*))?$/.exec(token) ?? [];
  if (version === undefined) throw refusal(`it does not begin with ${start}. or has other than three parts`);
  if (version !== '1')
    throw refusal(`it is of version ${version.slice(0, 4)}, this tartan knows version 1: install a later one`);
  if (!/^[A-Za-z0-9_-]*$/.test(payload + sum)) throw refusal('it has characters that no token has');
  if (sum.length < sumLength) throw refusal('its end is missing');
  if (sum !== sumOf(payload)) throw refusal('its check sum is wrong: a character is missing, added or another one');
  try {
    return payloadSchema.parse(JSON.parse(Buffer.from(payload, 'base64url').toString('utf8')));
  } catch {
    // Neither parser's message is shown: it may quote the text.
    throw refusal('what it holds is not what this version of tartan knows');
  }
}

function sumOf(payload: string): string {
  return createHash('sha256').update(`${start}.${payload}`).digest('base64url').slice(0, sumLength);
}

function refusal(why: string): TartanError {
  return new TartanError(
    'USAGE',
    `the token cannot be used: ${why}; copy the whole line that tartan init or tartan token new printed`,
  );
}
