/** What both programs do before they load anything else. */
import { refuseNode } from './node-floor.js';

/**
 * Ends the process where Node.js is too old, or where only the version is asked for: scripts ask often, and it needs nothing
 * of the rest.
 *
 * @param lead begins the refusal, `error` or the name of the program
 * @param status the exit status of the refusal
 */
export async function begin(lead: string, status: number): Promise<void> {
  // What a library uses that Node.js will drop is nothing that an operator can change.
  process.noDeprecation = true;
  const refusal = refuseNode();
  if (refusal !== undefined) {
    process.stderr.write(`${lead}: ${refusal}\n`);
    process.exit(status);
  }
  if (process.argv.length === 3 && process.argv[2] === '--version') {
    const { version } = await import('./version.js');
    process.stdout.write(`${version}\n`);
    process.exit(0);
  }
}
