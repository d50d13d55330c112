/**
 * A stand-in for `@std/testing/bdd` where JSR cannot be reached: `describe`, `it` and their hooks on `Deno.test`, each
 * outermost `describe` as one test with steps. Never published.
 *
 * @module
 */

/** A test's body. */
export type TestFunction = (t: Deno.TestContext) => void | Promise<void>;

type Hook = () => void | Promise<void>;

class Suite {
  readonly beforeAll: Hook[] = [];
  readonly afterAll: Hook[] = [];
  readonly beforeEach: Hook[] = [];
  readonly afterEach: Hook[] = [];
  readonly steps: { name: string; ignore: boolean; body: TestFunction | Suite }[] = [];

  constructor(readonly parent: Suite | undefined) {}

  /** Runs every step, hooks from the outside in and back. */
  async run(t: Deno.TestContext): Promise<void> {
    for (const hook of this.beforeAll) await hook();
    try {
      for (const { name, ignore, body } of this.steps) {
        await t.step({ name, ignore, fn: (t) => body instanceof Suite ? body.run(t) : this.runOne(body, t) });
      }
    } finally {
      for (const hook of this.afterAll) await hook();
    }
  }

  /** The groups around a test of this one, outermost first. */
  line(): Suite[] {
    return [...this.parent?.line() ?? [], this];
  }

  async runOne(body: TestFunction, t: Deno.TestContext): Promise<void> {
    const line = this.line();
    try {
      for (const suite of line) for (const hook of suite.beforeEach) await hook();
      await body(t);
    } finally {
      for (const suite of line.reverse()) for (const hook of suite.afterEach) await hook();
    }
  }
}

let current: Suite | undefined;

function inSuite(what: string): Suite {
  if (current === undefined) throw new Error(`Cannot call ${what} outside of describe in this stand-in`);
  return current;
}

function describeWith(ignore: boolean, name: string, body: () => void): void {
  const outer = current;
  const suite = new Suite(outer);
  current = suite;
  try {
    body();
  } finally {
    current = outer;
  }
  if (outer) outer.steps.push({ name, ignore, body: suite });
  else Deno.test({ name, ignore, fn: (t) => suite.run(t) });
}

function itWith(ignore: boolean, name: string, body: TestFunction): void {
  if (current) current.steps.push({ name, ignore, body });
  else Deno.test({ name, ignore, fn: body });
}

/** `describe` or `it`, with the form that leaves it out. */
export interface Block<B> {
  (name: string, body: B): void;
  /** Declared, but not run. */
  skip(name: string, body: B): void;
}

/** Declares a group of tests. */
export const describe: Block<() => void> = Object.assign(describeWith.bind(undefined, false), {
  skip: describeWith.bind(undefined, true),
});

/** Declares one test. */
export const it: Block<TestFunction> = Object.assign(itWith.bind(undefined, false), {
  skip: itWith.bind(undefined, true),
});

/** Runs once before the first test of the group. */
export function beforeAll(hook: Hook): void {
  inSuite("beforeAll").beforeAll.push(hook);
}

/** Runs once after the last test of the group. */
export function afterAll(hook: Hook): void {
  inSuite("afterAll").afterAll.push(hook);
}

/** Runs before each test of the group. */
export function beforeEach(hook: Hook): void {
  inSuite("beforeEach").beforeEach.push(hook);
}

/** Runs after each test of the group. */
export function afterEach(hook: Hook): void {
  inSuite("afterEach").afterEach.push(hook);
}
