-- What isr_hub may do, as isr_hub_owner after every isr-hub migrate. A table that is not named here it cannot
-- use, so that a new one is thought about.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM isr_hub, isr_hub_records;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO isr_hub;

-- Written once, never changed. (A witness's cosignature is added to a checkpoint's note; nothing else of it.)
GRANT INSERT ON ledger_entry, ledger_checkpoint, inbox, person_key, person_identifier, subject_key, case_person TO isr_hub;
GRANT UPDATE (note) ON ledger_checkpoint TO isr_hub;
GRANT INSERT ON decision_input TO isr_hub;
GRANT USAGE ON SEQUENCE decision_input_number_seq TO isr_hub;

-- What waits for people moves on, and what is kept for them goes when they have decided.
GRANT INSERT, UPDATE ON referral, duty, override TO isr_hub;
GRANT INSERT, DELETE ON kept_submission TO isr_hub;

GRANT INSERT ON agreement_set, case_message TO isr_hub;

-- Moves on.
GRANT INSERT, UPDATE ON agreement_version, case_caution, recall TO isr_hub;
GRANT INSERT, UPDATE ON ledger_head, ledger_tile, ledger_witness, outbox_watermark, case_file TO isr_hub;
-- Payloads stay until RabbitMQ has confirmed them.
GRANT INSERT, DELETE ON outbox TO isr_hub;
-- A count lasts as long as the doubt about a submission.
GRANT INSERT, UPDATE, DELETE ON suspect TO isr_hub;

-- Holds are put on and released by whoever runs the hub; what they keep, only isr_hub_records could delete.
GRANT INSERT ON legal_hold TO isr_hub;
GRANT UPDATE (released) ON legal_hold TO isr_hub;
GRANT INSERT, DELETE ON retention_mark, disposal_due TO isr_hub_records;
GRANT DELETE ON decision_input, case_message, inbox, case_file, case_person TO isr_hub_records;
GRANT DELETE ON person_key, person_identifier, subject_key TO isr_hub_records;
