/** The conformance suite within one process. */

import { conformance } from "./conformance/suite.ts";
import { facets } from "./conformance/facets.ts";
import { memory } from "./support/media.ts";

conformance(memory, facets);
