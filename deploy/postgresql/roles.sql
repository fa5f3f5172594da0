-- Three roles: isr_hub_owner makes and changes the tables (isr-hub migrate), isr_hub runs the hub and can
-- neither change nor delete what is in the ledger; isr_hub_records besides disposes of what retention allows
-- (isr-hub retention dispose). Once, as a superuser, in the hub's database; passwords
-- with \password.
CREATE ROLE isr_hub_owner LOGIN;
CREATE ROLE isr_hub LOGIN;
CREATE ROLE isr_hub_records LOGIN IN ROLE isr_hub;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO isr_hub_owner;
GRANT USAGE ON SCHEMA public TO isr_hub;
