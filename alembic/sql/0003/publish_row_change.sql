-- A trigger function: publishes each change of a table's rows when it commits, as an object with `type` ('row.change',
-- by which a consumer of Channels calls its method row_change), `operation` (insert, update, delete, truncate), `schema`, `table`, `key` (the columns of the primary key), `new` and `old` row or null,
-- `changed` (the names of changed columns), `time` (when the transaction began) and `transaction` (its id).
-- Its arguments: the topic, in which {column} stands for the value of a column; then, any number of times,
-- 'without=column' for a column to leave out, and 'prefix=...'.
--     CREATE TRIGGER live AFTER INSERT OR UPDATE OR DELETE ON orders FOR EACH ROW
--     EXECUTE FUNCTION pgchannels.publish_row_change('orders.{customer_id}', 'without=notes');
-- If an update changes a column that the topic names, the change goes to both topics.
-- PostgreSQL does not compute virtual generated columns for triggers: they are left out.
-- Not SECURITY DEFINER: making JSON of a row runs what the owners of its types have written.
CREATE OR REPLACE FUNCTION {schema}.publish_row_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- Rows read the same, whoever changes them.
SET timezone = 'UTC'
SET datestyle = 'ISO'
SET intervalstyle = 'postgres'
SET bytea_output = 'hex'
SET extra_float_digits = 1
AS $$
DECLARE
    options constant text[] := coalesce(TG_ARGV[1:], '{}');
    prefix text := 'asgi';
    left_out text[] := '{}';
    virtual text[];
    table_schema text;
    table_name text;
    old_row jsonb;
    new_row jsonb;
    change jsonb;
    key jsonb;
    changed jsonb := '[]';
    old_topic text;
    new_topic text;
    name text;
BEGIN
    IF TG_WHEN <> 'AFTER' OR (TG_OP = 'TRUNCATE') <> (TG_LEVEL = 'STATEMENT') THEN
        RAISE trigger_protocol_violated USING
            MESSAGE = format('the trigger %s is %s %s FOR EACH %s', TG_NAME, TG_WHEN, TG_OP, TG_LEVEL),
            HINT = 'Make it AFTER INSERT OR UPDATE OR DELETE ... FOR EACH ROW; for TRUNCATE another one, AFTER TRUNCATE ... FOR EACH STATEMENT.';
    END IF;
    FOR n IN 1 .. cardinality(options) LOOP
        IF starts_with(options[n], 'without=') THEN
            left_out := left_out || substr(options[n], 9);
        ELSIF starts_with(options[n], 'prefix=') THEN
            prefix := substr(options[n], 8);
        ELSE
            RAISE invalid_parameter_value USING
                MESSAGE = format('the trigger %s has the argument %L', TG_NAME, options[n]),
                HINT = 'The first argument is the topic, the others are ''without=column'' and ''prefix=...''.';
        END IF;
    END LOOP;

    SELECT c.relname, n.nspname INTO table_name, table_schema FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = coalesce(pg_partition_root(TG_RELID), TG_RELID);
    old_row := CASE WHEN TG_OP IN ('UPDATE', 'DELETE') THEN to_jsonb(OLD) END;
    new_row := CASE WHEN TG_OP IN ('INSERT', 'UPDATE') THEN to_jsonb(NEW) END;
    FOREACH name IN ARRAY left_out LOOP
        IF NOT coalesce(new_row, old_row, jsonb_build_object(name, NULL)) ? name THEN
            RAISE undefined_column USING
                MESSAGE = format('the trigger %s leaves out the column %I, which %I does not have', TG_NAME, name, table_name),
                HINT = 'Make the trigger again, with arguments ''without=column'' for columns that there are.';
        END IF;
    END LOOP;
    IF EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = TG_RELID AND a.attgenerated = 'v') THEN
        virtual := ARRAY(SELECT a.attname FROM pg_attribute AS a WHERE a.attrelid = TG_RELID AND a.attgenerated = 'v');
        old_row := old_row - virtual;
        new_row := new_row - virtual;
    END IF;
    IF TG_OP <> 'TRUNCATE' THEN
        SELECT jsonb_object_agg(a.attname, coalesce(new_row, old_row) -> a.attname::text) INTO key FROM pg_index AS i, pg_attribute AS a
        WHERE i.indrelid = TG_RELID AND i.indisprimary AND a.attrelid = TG_RELID AND a.attnum = ANY (i.indkey)
          AND a.attname::text <> ALL (left_out);
    END IF;
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        old_topic := {schema}.topic_of_row(TG_ARGV[0], old_row, TG_NAME);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        new_topic := {schema}.topic_of_row(TG_ARGV[0], new_row, TG_NAME);
    END IF;
    new_row := new_row - left_out;
    IF TG_OP = 'UPDATE' THEN
        SELECT coalesce(jsonb_agg(was.key ORDER BY was.key), '[]') INTO changed FROM jsonb_each(new_row) AS was WHERE value <> old_row -> was.key;
    END IF;
    change := jsonb_build_object(
        'type', 'row.change', 'operation', lower(TG_OP), 'schema', table_schema, 'table', table_name,
        'key', key, 'new', new_row, 'old', old_row - left_out, 'changed', changed, 'time', transaction_timestamp(), 'transaction', pg_current_xact_id()::text
    );
    IF old_topic IS NOT NULL THEN
        PERFORM {schema}.publish(old_topic, change, prefix => prefix);
    END IF;
    IF new_topic IS DISTINCT FROM old_topic AND new_topic IS NOT NULL THEN
        PERFORM {schema}.publish(new_topic, change, prefix => prefix);
    END IF;
    RETURN NULL;
END
$$
