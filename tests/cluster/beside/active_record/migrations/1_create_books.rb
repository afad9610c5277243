class CreateBooks < ActiveRecord::Migration[6.1]
  def change
    create_table :books, id: :string do |t|
      t.string :title, null: false
      t.string :note
    end
  end
end
