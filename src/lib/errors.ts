/**
 * The one error class of the program and its closed list of codes. A code decides the reaction and, where the
 * reaction is to stop, the exit status (sysexits.h where a value fits).
 */
const exitCodes = {
  USAGE: 64,
  CONFIG_INVALID: 78,
  PERMISSION: 77,
  STORE_UNAVAILABLE: 1,
  NO_FREE_SUBNET: 1,
  DUPLICATE_NODE: 73,
  LEASE_LOST: 75,
  HOST_REFUSED: 1,
  DATAPATH_FAILED: 1,
  INVARIANT: 70,
} as const;

export type ErrorCode = keyof typeof exitCodes;

export class TartanError extends Error {
  readonly code: ErrorCode;

  /** @param message names the value, what was expected and the next step; never a secret */
  constructor(code: ErrorCode, message: string, options?: { readonly cause?: unknown }) {
    super(message, options);
    this.name = 'TartanError';
    this.code = code;
  }

  get exitCode(): number {
    return exitCodes[this.code];
  }
}

export function isTartanError(error: unknown, code?: ErrorCode): error is TartanError {
  return error instanceof TartanError && (code === undefined || error.code === code);
}

/** The exit status for anything thrown: ours by code, everything else is a broken invariant (70). */
export function exitCodeOf(error: unknown): number {
  return error instanceof TartanError ? error.exitCode : exitCodes.INVARIANT;
}

/** One line of text for anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The errno name (`EBUSY`) of an error in Node's shape, if it carries one. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
