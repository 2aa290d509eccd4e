/**
 * The page as one document: markup, style and script in one answer, and the content security policy that lets these run
 * and nothing else. Texts of peers come later, as JSON, and the script writes them as text.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

export interface PageDocument {
  readonly html: string;
  /** Content-Security-Policy (CSP Level 3). */
  readonly policy: string;
}

/** Reads the parts, which stand beside this file in src and in dist alike. */
export function openPage(name: 'page' | 'login'): PageDocument {
  const style = readPart('page.css');
  const script = name === 'page' ? readPart('page.js') : '';
  const html = readPart(`${name}.html`)
    .replace('<style></style>', () => `<style>${style}</style>`)
    .replace('<script></script>', () => `<script>${script}</script>`);
  const policy = [
    "default-src 'none'",
    `style-src ${hashOf(style)}`,
    ...(script === '' ? [] : [`script-src ${hashOf(script)}`, "connect-src 'self'"]),
    `form-action ${name === 'login' ? "'self'" : "'none'"}`,
    "base-uri 'none'",
    "frame-ancestors 'none'",
  ];
  return { html, policy: policy.join('; ') };
}

function readPart(file: string): string {
  return readFileSync(new URL(`page/${file}`, import.meta.url), 'utf8');
}

function hashOf(text: string): string {
  return `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
}
