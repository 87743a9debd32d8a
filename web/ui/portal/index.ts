// The portal works without any of this. Each island below makes one thing of
// the page alive and does nothing on pages that do not have it.
import { forms } from "./forms";
import { keys } from "./keys";
import { live } from "./live";
import { menus } from "./menus";
import { probe } from "./probe";
import { tables } from "./tables";
import { theme } from "./theme";
import { times } from "./times";

theme();
forms();
menus();
tables(document);
times(document);
keys();
probe();
live();
