/** Who owns what is inside of a package, with the words of each licence but Apache's, which is a file of its own. */
import { readFileSync } from 'node:fs';
import type { BundledModule } from './bundle.js';

const rule = '-'.repeat(78);

/**
 * @param nodeLicence the file of Node.js, which covers all that it is made of
 * @param apache where the text of the Apache licence lies once the package is installed
 */
export function formatCopyright(nodeLicence: string, apache: string, modules: readonly BundledModule[]): string {
  const parts = [
    'tartan, an overlay network for Docker hosts.',
    'Copyright: the authors of tartan.',
    `Licence: Apache-2.0, the Apache License, Version 2.0: ${apache}, on Debian also /usr/share/common-licenses/Apache-2.0.`,
    'The programs for the kernel (native/bpf) may be used under GPL-2.0, too.',
    'Its JavaScript files hold the modules below; bin/node is Node.js, whose licence ends this file.',
    ...modules.map(module => describeModule(module, apache)),
    `${rule}\nNode.js\n\n${readFileSync(nodeLicence, 'utf8').trim()}`,
  ];
  return `${parts.join('\n\n')}\n`;
}

function describeModule({ name, version, licence, text }: BundledModule, apache: string): string {
  const head = `${rule}\n${name} ${version}, licence ${licence}`;
  if (licence === 'Apache-2.0')
    return `${head}: ${apache}${text === undefined ? '' : `\n\n${ownersIn(text)}`}`.trimEnd();
  return text === undefined ? `${head}, as its package.json says` : `${head}\n\n${text}`;
}

/** The lines of a long licence that name somebody. */
function ownersIn(text: string): string {
  return text
    .split('\n')
    .filter(line => /^\s*copyright\s.*\d{4}/i.test(line) && !line.includes('[yyyy]'))
    .map(line => line.trim())
    .join('\n');
}
